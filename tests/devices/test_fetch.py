import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax.devices import fetch


def _events(monkeypatch, processes=1):
    """The order of events while three arrays are dispatched, fetched and used."""
    events = []
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    gathered = lambda tree, tiled: jax.tree.map(np.asarray, tree)  # noqa: E731
    monkeypatch.setattr(fetch.multihost_utils, "process_allgather", gathered)

    def dispatched():
        for number in range(3):
            events.append(f"start {number}")
            yield {"number": jnp.full(2, number)}

    for made in fetch.fetch_ahead(dispatched()):
        np.testing.assert_array_equal(made["number"], made["number"][0])
        events.append(f"use {made['number'][0]}")
    return events


def test_the_next_program_starts_before_the_last_result_is_used(monkeypatch):
    assert _events(monkeypatch) == ["start 0", "start 1", "use 0", "start 2", "use 1", "use 2"]


def test_several_processes_run_one_program_at_a_time(monkeypatch):
    assert _events(monkeypatch, processes=2) == [f"{what} {number}" for number in range(3) for what in ("start", "use")]


def test_no_program_and_one_program():
    assert list(fetch.fetch_ahead([])) == []
    (one,) = fetch.fetch_ahead([jnp.ones(3)])
    assert isinstance(one, np.ndarray) and one.shape == (3,)


def test_errors_of_dispatching_propagate():
    def dispatched():
        yield jnp.ones(1)
        raise ValueError("cannot start")

    with pytest.raises(ValueError, match="cannot start"):
        list(fetch.fetch_ahead(dispatched()))
