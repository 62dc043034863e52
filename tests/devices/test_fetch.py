import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax.devices import fetch


def _events(monkeypatch, processes=1):
    """What happens in which order as three arrays are fetched, and used."""
    events = []
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    gathered = lambda tree, tiled: jax.tree.map(np.asarray, tree)  # noqa: E731
    monkeypatch.setattr(fetch.multihost_utils, "process_allgather", gathered)

    def started():
        for number in range(3):
            events.append(f"start {number}")
            yield {"number": jnp.full(2, number)}

    for made in fetch.fetched(started()):
        np.testing.assert_array_equal(made["number"], made["number"][0])
        events.append(f"use {made['number'][0]}")
    return events


def test_the_next_is_started_before_one_is_used(monkeypatch):
    assert _events(monkeypatch) == ["start 0", "start 1", "use 0", "start 2", "use 1", "use 2"]


def test_programs_of_several_processes_run_one_after_the_other(monkeypatch):
    assert _events(monkeypatch, processes=2) == [f"{what} {number}" for number in range(3) for what in ("start", "use")]


def test_none_and_one():
    assert list(fetch.fetched([])) == []
    (one,) = fetch.fetched([jnp.ones(3)])
    assert isinstance(one, np.ndarray) and one.shape == (3,)


def test_what_starting_raises_is_raised():
    def started():
        yield jnp.ones(1)
        raise ValueError("cannot start")

    with pytest.raises(ValueError, match="cannot start"):
        list(fetch.fetched(started()))
