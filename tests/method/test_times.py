import jax
import numpy as np
import pytest

from sgflow_jax import objectives
from sgflow_jax.interfaces import InputError
from sgflow_jax.times import PairLaw, Strata, TimeLaw

N, KEY = 20_000, jax.random.key(0)
UNIFORM = PairLaw(TimeLaw(), TimeLaw())
# MeanFlow's recipe of 25 % on the diagonal, in this project's direction of time. Theirs: t ~ (-.6, 1.6), r ~ (-4, 1.6).
MEAN_FLOW = {
    "time_law": "logit_normal",
    "logit_mean": 0.6,
    "logit_std": 1.6,
    "end_law": "logit_normal",
    "end_logit_mean": 4.0,
    "end_logit_std": 1.6,
    "pairing": "clipped",
    "prob_diagonal": 0.25,
}


def _share(found, expected, n=N):
    """Whether the mean of n yes and no is the expected probability."""
    return abs(np.mean(found) - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


def test_pairs_are_ordered_and_uniform_on_the_triangle():
    t, u = UNIFORM.draw(KEY, N)
    assert np.all(t < u) and np.all(t >= 0) and np.all(u < 1)
    # The smaller and the larger of two uniforms have means 1/3 and 2/3 and standard deviation sqrt(1/18).
    four_sigma = 4 * np.sqrt(1 / 18 / N)
    assert abs(t.mean() - 1 / 3) < four_sigma
    assert abs(u.mean() - 2 / 3) < four_sigma
    # Uniform: the part of the triangle where t < a and u > b is a rectangle of area a (1 - b), for a < b.
    for a, b in [(0.3, 0.5), (0.5, 0.5), (0.2, 0.9)]:
        share = 2 * a * (1 - b)
        assert abs(np.mean((t < a) & (u > b)) - share) < 4 * np.sqrt(share * (1 - share) / N)


def test_pairs_in_both_orders_are_independent():
    t, u = UNIFORM.unordered(KEY, N)
    ordered = UNIFORM.draw(KEY, N)
    np.testing.assert_array_equal(ordered, (np.minimum(t, u), np.maximum(t, u)))
    assert abs(np.mean(t > u) - 1 / 2) < 4 * np.sqrt(0.25 / N)
    assert abs(np.corrcoef(t, u)[0, 1]) < 4 / np.sqrt(N)
    assert abs(t.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / N) and abs(u.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / N)


def test_logit_normal_has_its_quantiles():
    t = TimeLaw("logit_normal", logit_mean=-0.6, logit_std=1.6).single(jax.random.key(0), N)
    # P(t < sigmoid(mean + z std)) = Phi(z).
    for z, probability in [(-1, 0.158655), (0, 0.5), (1, 0.841345)]:
        threshold = 1 / (1 + np.exp(0.6 - 1.6 * z))
        assert abs(np.mean(t < threshold) - probability) < 4 * np.sqrt(0.25 / N)


def test_logit_mean_has_the_opposite_sign_to_papers_with_noise_at_time_1():
    """MeanFlow's P_mean = -2: its median time is 0.12, near its data, and so is 1 - 0.12 here."""
    published = 1 / (1 + np.exp(2))
    here = TimeLaw("logit_normal", logit_mean=2.0).single(jax.random.key(0), N)
    assert abs(np.mean(here < 1 - published) - 0.5) < 4 * np.sqrt(0.25 / N) and np.median(here) > 0.85


def test_a_normal_logarithm_of_the_noise_level_is_a_logit_normal_time_of_the_other_sign():
    """x_t = t (x1 + sigma x0) with sigma = (1 - t) / t. EDM: ln sigma ~ N(-1.2, 1.2^2)."""
    t = np.asarray(TimeLaw("logit_normal", logit_mean=1.2, logit_std=1.2).single(KEY, N), np.float64)
    log_sigma = np.log((1 - t) / t)
    assert abs(log_sigma.mean() + 1.2) < 4 * 1.2 / np.sqrt(N)
    assert abs(log_sigma.std() - 1.2) < 4 * 1.2 / np.sqrt(2 * N)


def test_times_of_an_extreme_law_stay_between_0_and_1():
    for mean in (-100.0, 100.0):
        t = TimeLaw("logit_normal", mean, 100.0).single(KEY, N)
        assert t.dtype == np.float32 and t.min() > 0 and t.max() < 1


def test_the_laws_of_mean_flow_in_their_own_time():
    """t' = 1 - t is theirs: r' is a draw of its own law, but no later than t'."""
    t, u = objectives.make("mean_flow", **MEAN_FLOW).draw_pair(KEY, N, np.float32)
    their_t, their_r = 1 - np.asarray(t, np.float64), 1 - np.asarray(u, np.float64)
    below = 1 / (1 + np.exp(0.6)), 1 / (1 + np.exp(4))  # their medians
    assert _share(their_t < below[0], 0.5)
    # r' is above its law's median if both draws are, t' with the probability Phi((-.6 + 4) / 1.6).
    assert _share(their_r > below[1], 0.5 * 0.983207)
    # On the diagonal besides the 25 %: Phi(-(-.6 + 4) / sqrt(1.6^2 + 1.6^2)).
    assert np.all(t <= u) and _share(t == u, 0.066471)


def test_clipped_pairs_of_one_law_are_half_on_the_diagonal():
    t, u = PairLaw(TimeLaw(), TimeLaw(), "clipped").draw(KEY, N)
    assert _share(t == u, 0.5) and _share(t < 0.25, 0.25)


def test_the_diagonal_has_its_own_law():
    def drawn(**options):
        return np.asarray(objectives.make("lsd", **options).draw_diagonal(KEY, N, np.float32))

    np.testing.assert_array_equal(drawn(), TimeLaw().single(KEY, N))
    own = drawn(diagonal_law="logit_normal", diagonal_logit_mean=2.0)
    np.testing.assert_array_equal(own, TimeLaw("logit_normal", 2.0).single(KEY, N))
    assert _share(drawn(diagonal_law="start") < 0.5, 0.75)  # the smaller of two
    assert _share(drawn(diagonal_law="uniform", time_law="logit_normal", logit_mean=3.0) < 0.25, 0.25)


def test_default_laws_draw_the_numbers_of_earlier_versions():
    batch = np.zeros((8, 2), np.float32)
    for law in ("uniform", "logit_normal"):
        drawn = objectives.make("lsd", time_law=law).draw(KEY, batch, batch, 0)
        key_on, key_off, _ = jax.random.split(KEY, 3)
        draw = jax.random.uniform if law == "uniform" else lambda *a: jax.nn.sigmoid(jax.random.normal(*a))
        np.testing.assert_array_equal(drawn.diagonal.t, draw(key_on, (4,)))
        both = np.sort(np.asarray(draw(key_off, (8,))).reshape(2, 4), axis=0)
        np.testing.assert_array_equal([drawn.off_diagonal.t, drawn.off_diagonal.u], both)


@pytest.mark.parametrize("law", [{"name": "normal"}, {"logit_std": 0.0}, {"logit_std": 101.0}, {"logit_mean": -101.0}])
def test_bad_law(law):
    with pytest.raises(InputError, match="use"):
        TimeLaw(**law)


@pytest.mark.parametrize("probability, group, diagonal", [(0.5, 2, 1), (0.75, 4, 3), (0.25, 4, 1), (1 / 3, 3, 1)])
def test_strata_split_and_merge(probability, group, diagonal):
    strata = Strata.from_probability(probability)
    assert (strata.group, strata.diagonal) == (group, diagonal)
    batch = np.arange(2 * group)
    on, off = strata.on_diagonal(batch), strata.off_diagonal(batch)
    assert len(on) == 2 * diagonal and len(on) + len(off) == len(batch)
    np.testing.assert_array_equal(on[:diagonal], np.arange(diagonal))
    np.testing.assert_array_equal(strata.merge(on, off), batch)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.5, 0.123456])
def test_strata_rejects_a_share_that_no_split_has(probability):
    with pytest.raises(InputError, match="prob_diagonal"):
        Strata.from_probability(probability)


def test_strata_rejects_a_batch_that_does_not_split():
    with pytest.raises(InputError, match="groups of 4"):
        Strata.from_probability(0.25).on_diagonal(np.arange(6))


def test_strata_move_no_examples_between_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = jax.device_put(np.arange(16.0), split)
    compiled = jax.jit(Strata.from_probability(0.5).off_diagonal, out_shardings=split).lower(batch).compile()
    assert "all-to-all" not in compiled.as_text() and "all-gather" not in compiled.as_text()
    np.testing.assert_array_equal(compiled(batch), np.arange(1.0, 16, 2))
