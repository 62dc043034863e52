import functools

import jax
import numpy as np
import pytest

from sgflow_jax.guard import FAULTS, RECENT, WINDOW, Guard, Limits

LIMITS = Limits(max_abs_loss=1e6, divergence_factor=20.0)


_watch_step = functools.partial(jax.jit, static_argnums=5)(Guard.watch)


def _watch(losses, grad_norms, limits=LIMITS, params_norm=1.0):
    """(step, fault) of the first fault; step -1 for none."""
    guard = Guard.fresh()
    for step, seen in enumerate(zip(losses, grad_norms, strict=True), 1):
        loss, grad_norm = map(np.float32, seen)
        guard = _watch_step(guard, step, np.array([0, loss]), grad_norm, params_norm, limits)
    return int(guard.fault_step), FAULTS[int(guard.fault)]


QUIET = np.random.default_rng(0).uniform(0.5, 1.5, WINDOW)


def _then(value):
    """A quiet window, then RECENT steps of one value."""
    return [*QUIET, *[value] * RECENT]


@pytest.mark.parametrize("loss", [30.0, -30.0])
def test_loss_and_gradient_far_above_their_medians(loss):
    """Of either sign: sgflow's loss may become strongly negative. Detected once most recent steps are far out, in any
    of the loss's terms."""
    assert _watch(_then(loss), _then(50.0)) == (WINDOW + RECENT // 2 + 1, FAULTS[-1])


@pytest.mark.parametrize(
    "loss, grad_norm, factor",
    [(30.0, 5.0, 20), (1.0, 50.0, 20), (15.0, 15.0, 20), (30.0, 50.0, 0)],
    ids=["gradient quiet", "loss quiet", "both a little high", "turned off"],
)
def test_less_is_not_divergence(loss, grad_norm, factor):
    assert _watch(_then(loss), _then(grad_norm), LIMITS._replace(divergence_factor=factor))[0] == -1


def test_a_few_outlying_batches_are_not_divergence():
    few = [1e4] * (RECENT // 2 - 1)
    assert _watch([*QUIET, *few, *QUIET], [*QUIET, *few, *QUIET])[0] == -1


def test_a_median_needs_a_full_window():
    loud = [50.0] * RECENT
    assert _watch([*QUIET[: WINDOW - RECENT - 1], *loud], [*QUIET[: WINDOW - RECENT - 1], *loud])[0] == -1


def test_a_median_covers_only_the_window():
    """Earlier high values do not hide a rise now."""
    series = [*QUIET * 1e3, *_then(30.0)]
    assert _watch(series, series)[0] == 2 * WINDOW + RECENT // 2 + 1


@pytest.mark.parametrize(
    "loss, grad_norm, params_norm, fault",
    [
        (np.nan, np.nan, np.nan, 0),
        (1, np.inf, np.nan, 1),
        (1, 1, np.nan, 2),
        (-2e6, 1, 1, 3),
    ],
)
def test_the_first_of_several_faults_is_reported(loss, grad_norm, params_norm, fault):
    assert _watch([loss], [grad_norm], params_norm=params_norm) == (1, FAULTS[fault])


def test_the_first_fault_is_kept():
    assert _watch([1, np.nan, 1, 1e9], [1, 1, 1, 1]) == (2, FAULTS[0])
