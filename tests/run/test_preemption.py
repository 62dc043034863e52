import http.server
import os
import signal
import threading
import time

import pytest

from sgflow_jax.run import preemption
from sgflow_jax.run.preemption import Preemption


def _reached(watch, seconds=10):
    for _ in range(100 * seconds):
        if watch.reached():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_for_a_stop_and_is_given_back_afterwards(number):
    before, said = signal.getsignal(number), []
    with Preemption(said.append) as watch:
        assert not watch.reached()
        os.kill(os.getpid(), number)
        assert _reached(watch)
    assert len(said) == 1 and signal.Signals(number).name in said[0]
    assert signal.getsignal(number) == before and signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_is_ignored_stays_so():
    """As SIGHUP is under nohup."""
    before, said = signal.signal(signal.SIGHUP, signal.SIG_IGN), []
    try:
        with Preemption(said.append) as watch:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert _reached(watch)
        assert len(said) == 1 and "SIGTERM" in said[0] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_of_several_that_is_stuck_in_its_step_leaves(monkeypatch):
    """SIGTERM is JAX's there, for which something else stands here, and goes on to it."""
    theirs, left, said = [], [], []
    before = signal.signal(signal.SIGTERM, lambda *_: theirs.append(1))
    monkeypatch.setattr(preemption, "LEAVE_SECONDS", 0.2)
    monkeypatch.setattr(preemption.os, "_exit", left.append)
    try:
        watch = Preemption(said.append)
        watch._several, watch._signals = True, (signal.SIGINT, signal.SIGHUP)
        with watch:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                if left:
                    break
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left == [143] and theirs and "SIGTERM" in said[0] and "last checkpoint" in said[1]


def test_a_second_interrupt_leaves_at_once_and_a_second_sigterm_does_not(monkeypatch):
    left = []
    monkeypatch.setattr(preemption.os, "_exit", left.append)
    with Preemption(lambda _: None) as watch:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert _reached(watch)
            time.sleep(0.1)
        assert left == []
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            if left:
                break
            time.sleep(0.01)
    assert left == [130]


def test_outside_the_main_thread_signals_are_left_alone():
    found = []

    def run():
        with Preemption(found.append) as watch:
            found.append(watch.reached())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False] and signal.getsignal(signal.SIGTERM) == before


def test_maintenance_of_the_machine_is_a_reason_to_stop():
    answers = ["NONE", "TERMINATE_ON_HOST_MAINTENANCE"]
    asked = []

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Metadata-Flavor"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[min(len(asked), len(answers)) - 1].encode())

        def log_message(self, *_): ...

    said = []
    with http.server.HTTPServer(("localhost", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Preemption(said.append, f"http://localhost:{server.server_port}/event") as watch:
            assert _reached(watch)
        server.shutdown()
    assert asked[0] == ("/event?wait_for_change=true&timeout_sec=30", "Google") and len(asked) == 2
    assert len(said) == 1 and "TERMINATE_ON_HOST_MAINTENANCE" in said[0]
