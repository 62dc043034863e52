import threading
import time

import pytest

from eval.scores.background import Background

PATIENCE = 30  # seconds


def test_calls_are_made_in_order_while_the_caller_goes_on():
    done, go_on = [], threading.Event()

    def call(number):
        assert go_on.wait(PATIENCE)
        time.sleep(0.1 * (3 - number))  # the first take longest
        done.append(number)

    with Background(limit=3) as work:
        for number in range(3):
            work.submit(call, number)
        assert not done
        go_on.set()
        work.wait()
        assert done == [0, 1, 2]


@pytest.mark.parametrize("limit", [1, 2])
def test_as_many_as_the_limit_are_unfinished(limit):
    done = []
    with Background(limit) as work:
        for number in range(20):
            work.submit(done.append, number)
            assert len(done) >= number + 1 - limit
        work.wait()
    assert done == list(range(20))


def _fail():
    raise ValueError("failed")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_fault_is_raised_by_the_same_later_call_however_fast_the_thread_is(limit):
    with Background(limit) as work:
        work.submit(_fail)
        for _ in range(limit - 1):
            work.submit(list)
        with pytest.raises(ValueError, match="failed"):
            work.submit(list)
        work.submit(_fail)
        with pytest.raises(ValueError, match="failed"):
            work.wait()


def test_leaving_waits_for_the_call_under_way():
    begun, left, done = threading.Event(), threading.Event(), []

    def call():
        begun.set()
        left.wait(0.2)
        done.append(True)

    with pytest.raises(KeyError), Background(limit=2) as work:
        work.submit(call)
        assert begun.wait(PATIENCE)
        raise KeyError
    assert done == [True]
