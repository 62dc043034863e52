"""The options of the objectives: their domains, valid values, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import objectives
from sgflow_jax.interfaces import InputError
from sgflow_jax.times import Domain
from tests.method.test_objective_batches import FLOW_MAPS, KEY, pairs, smooth_net, watched

DOMAINS = {
    **dict.fromkeys(FLOW_MAPS, Domain.FORWARD),
    "flow_matching": Domain.DIAGONAL,
    "fmm": Domain.BOTH,
    "consistency": Domain.TO_DATA,
    "shortcut": Domain.DYADIC,
}


def _calls(objective, n):
    """The (t, u) of every network call outside derivatives."""
    calls = []

    def net(t, u, x):
        if not isinstance(x, jax.core.Tracer):
            calls.append(np.array([t, u]))
        return x

    objective(net, *pairs(n), KEY)
    return calls


def _off_diagonal_times(name):
    """The (t, u) with t != u of the examples and of the network calls."""
    objective, seen = watched(name) if name in FLOW_MAPS else (objectives.make(name), [])
    times = np.concatenate(_calls(objective, 64) + [np.array([examples.t, examples.u]) for examples, _ in seen], axis=1)
    return times[:, times[0] != times[1]]


@pytest.mark.parametrize("name", objectives.names())
def test_times_lie_in_the_domain(name):
    domain, (t, u) = DOMAINS[name], _off_diagonal_times(name)
    assert objectives.make(name).domain is domain
    forward = np.all(t < u)
    dyadic = np.all(np.isin(u - t, [2.0**-k for k in range(8)]) & (t % (u - t) == 0))
    assert {
        Domain.DIAGONAL: len(t) == 0,
        Domain.FORWARD: forward and not dyadic,
        Domain.BOTH: not forward and np.any(t < u),
        Domain.TO_DATA: forward and np.all(u == 1),
        Domain.DYADIC: forward and dyadic,
    }[domain]


@pytest.mark.parametrize("name", [name for name in FLOW_MAPS if "both" in objectives.make(name).directions])
def test_both_directions(name):
    """test_objectives checks the values, with times in both orders."""
    objective, seen = watched(name, direction="both")
    assert objective.domain is Domain.BOTH
    objective(smooth_net, *pairs(256), KEY)
    (((t, u, *_), _),) = seen
    assert 32 < np.sum(t > u) < 96 and np.all(t != u)


def test_shortcut_takes_every_step_size_and_every_start_equally_often():
    objective = objectives.make("shortcut", num_steps=4)
    assert objective.step_counts == (1, 2, 4) and objectives.make("shortcut").step_counts[-1] == 128
    assert all(objectives.make(name).step_counts is None for name in objectives.names() if name != "shortcut")
    t, u = objective.draw_pair(KEY, 3_000, jnp.float32)
    for size in (1, 1 / 2, 1 / 4):
        starts, counts = np.unique(t[u - t == size], return_counts=True)
        np.testing.assert_array_equal(starts, np.arange(0, 1, size))
        assert abs(counts.sum() - 1000) < 4 * np.sqrt(3000 * 2 / 9)
        assert np.all(np.abs(counts / counts.sum() - size) < 0.1)


def test_psd_can_split_uniformly():
    (t, s), (_, u) = _calls(objectives.make("psd", split="uniform"), 4096)[1:3]
    g = (s - t) / (u - t)
    assert abs(np.mean(g) - 1 / 2) < 4 * np.sqrt(1 / 12 / 2048) and abs(np.var(g) - 1 / 12) < 0.01
    # Independent of t and u.
    assert np.all(np.abs(np.corrcoef([g, t, u])[0, 1:]) < 4 / np.sqrt(2048))


def test_weights_of_each_objective():
    expected = {
        "sgflow": ("none", "residual"),  # its loss may be negative
        "mean_flow": ("none", "adaptive", "learned"),
        "improved_mean_flow": ("none", "residual", "adaptive", "learned"),
        "fmm": ("none", "learned"),
    }
    for name in FLOW_MAPS:
        assert objectives.make(name).weights == expected.get(name, ("none", "residual", "learned"))


def test_only_some_options_leave_the_truth_stationary():
    assert objectives.make("consistency", continuous=True).exact
    assert not objectives.make("consistency", continuous=True, distance="pseudo_huber").exact


@pytest.mark.parametrize(
    "name, options, match",
    [
        ("nope", {}, "'nope'.*sgflow, flow_matching, mean_flow"),
        ("sgflow", {"estimater": "split"}, "estimater.*estimator"),
        ("sgflow", {"estimator": "both"}, "'both'.*paired, split"),
        ("sgflow", {"estimator": "split", "weight": "residual"}, "split.*residual"),
        ("sgflow", {"guidance": float("nan")}, "guidance is nan"),
        ("sgflow", {"guidance_end": 1.5}, r"guidance acts from 0.0 to 1.5: use two times, 0 <= start < end <= 1"),
        ("sgflow", {"correction": float("inf")}, "correction is inf"),
        ("sgflow", {"correction_steps": -1}, "correction_steps is -1"),
        ("sgflow", {"prob_diagonal": 1.0}, "prob_diagonal"),
        ("sgflow", {"prob_diagonal": float("nan")}, "prob_diagonal is nan"),
        ("sgflow", {"time_law": "beta"}, "'beta'.*uniform, logit_normal"),
        ("sgflow", {"logit_std": float("nan")}, "logit_std is nan"),
        ("sgflow", {"interpolant": "cubic"}, "'cubic'.*linear"),
        ("sgflow", {"velocity_target": "self"}, "velocity_target of SGFlow is 'self'.*pair, batch"),
        ("sgflow", {"warmup_steps": -1}, "warmup_steps"),
        ("sgflow", {"ramp_steps": -1}, "ramp_steps"),
        ("sgflow", {"weight": "adaptive"}, "weight of SGFlow is 'adaptive'.*none, residual"),
        ("sgflow", {"weight_power": -1.0}, "weight_power is -1.0"),
        ("sgflow", {"direction": "backward"}, "direction.*'backward'.*forward, both"),
        ("sgflow", {"weight": "learned"}, "weight of SGFlow is 'learned'.*none, residual"),
        ("sgflow", {"pairing": "nearest"}, "pairing of SGFlow is 'nearest'.*sorted, clipped"),
        ("sgflow", {"end_law": "beta"}, "end_law of SGFlow is 'beta'.*same, uniform, logit_normal"),
        ("sgflow", {"end_logit_std": -1.0}, "end_logit_std is -1.0: use a positive number"),
        ("sgflow", {"diagonal_law": "end"}, "diagonal_law.*same, start, uniform, logit_normal"),
        ("sgflow", {"diagonal_logit_mean": 200.0}, "diagonal_logit_mean is 200.0: use one from -100.0 to 100.0"),
        ("sgflow", {"direction": "both", "pairing": "clipped"}, "pairing is 'clipped'.*all t and u: use 'sorted'"),
        ("sgflow", {"target": "teacher"}, "target of SGFlow is 'teacher'.*self, average"),
        ("sgflow", {"dropout": "never"}, "dropout of SGFlow is 'never'.*everywhere, predictions, diagonal"),
        ("fmm", {"end_law": "uniform"}, "end_law 'uniform', but FMM trains all t and u"),
        ("fmm", {"target": "average"}, "target of FMM is 'average', but it has no target.*'self'"),
        ("shortcut", {"pairing": "clipped"}, "Shortcut trains t = u, and u - t = 1, 1/2"),
        ("lsd", {"stopgrad": "none", "target": "average"}, "target of LSD is 'average', but it has no target"),
        ("psd", {"stopgrad": "none", "dropout": "predictions"}, "dropout of PSD.*no target.*'everywhere'"),
        ("flow_matching", {"dropout": "diagonal"}, "dropout of FlowMatching is 'diagonal'.*everywhere, predictions"),
        ("consistency", {"distance": "lpips"}, "distance of Consistency is 'lpips'.*squared, pseudo_huber"),
        ("consistency", {"huber_scale": 0.0}, "huber_scale is 0.0: use a positive number"),
        ("consistency", {"continuous": True, "interval": "noise_level"}, "interval of Consistency.*use 'time'"),
        ("flow_matching", {"prob_diagonal": 0.5}, "prob_diagonal"),
        ("mean_flow", {"weight_offset": 0.0}, "weight_offset 0.0"),
        ("mean_flow", {"weight": "residual"}, "'residual'.*none, adaptive"),
        ("fmm", {"direction": "forward"}, "direction of FMM is 'forward'.*both"),
        ("fmm", {"weight": "residual"}, "weight of FMM.*none"),
        ("ctm", {"direction": "both"}, "direction of CTM is 'both'.*forward"),
        ("ctm", {"intervals": 0}, "intervals of CTM is 0"),
        ("ctm", {"pairing": "clipped"}, "pairing of CTM is 'clipped': use 'sorted'"),
        ("shortcut", {"direction": "both"}, "direction of Shortcut is 'both'.*forward"),
        ("shortcut", {"num_steps": 6}, "num_steps of Shortcut is 6.*power of 2"),
        ("shortcut", {"num_steps": 0}, "num_steps of Shortcut is 0"),
        ("esd", {"stopgrad": "slim"}, "stopgrad of ESD is 'slim'.*none, convex, full"),
        ("lsd", {"stopgrad": "full"}, "stopgrad of LSD is 'full'.*none, convex"),
        ("psd", {"stopgrad": "full"}, "stopgrad of PSD is 'full'"),
        ("psd", {"split": "thirds"}, "split of PSD is 'thirds'.*midpoint, uniform"),
        ("consistency", {"initial_intervals": 0}, "initial_intervals is 0"),
        ("consistency", {"final_intervals": 4}, "final_intervals 4"),
        ("consistency", {"doubling_steps": 0}, "doubling_steps 0"),
        ("consistency", {"warmup_steps": 5}, "no option warmup_steps.*doubling_steps"),
    ],
)
def test_bad_options_are_rejected_with_the_valid_ones(name, options, match):
    with pytest.raises(InputError, match=match) as error:
        objectives.make(name, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", objectives.names())
def test_objectives_are_hashable_and_equal_by_value(name):
    other = objectives.make(name, time_law="logit_normal")
    assert objectives.make(name) == objectives.make(name) and objectives.make(name) != other
    assert len({objectives.make(name), objectives.make(name), other}) == 2


def test_batch_multiples():
    multiples = {name: objectives.make(name).batch_multiple for name in objectives.names()}
    assert multiples == {name: 2 if name in FLOW_MAPS else 1 for name in objectives.names()}
    for prob_diagonal, multiple in [(0.5, 4), (0.75, 8), (1 / 3, 3)]:
        objective = objectives.make("sgflow", estimator="split", prob_diagonal=prob_diagonal)
        assert objective.batch_multiple == multiple
    with pytest.raises(InputError, match="3 off-diagonal examples.*even"):
        objectives.make("sgflow", estimator="split")(smooth_net, *pairs(6), KEY)


@pytest.mark.parametrize("name", objectives.names())
def test_a_teacher_is_rejected_where_it_has_no_use(name):
    objective = objectives.make(name)
    assert objective.takes_teacher == (name not in ("flow_matching", "psd", "fmm"))
    if not objective.takes_teacher:
        with pytest.raises(InputError, match="takes no teacher"):
            objective(smooth_net, *pairs(), KEY, teacher=smooth_net)
