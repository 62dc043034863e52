import jax
import numpy as np
import pytest

from sgflow_jax.interfaces import InputError
from sgflow_jax.times import Strata, TimeLaw

N = 20_000


def test_pairs_are_ordered_and_uniform_on_the_triangle():
    t, u = TimeLaw().pair(jax.random.key(0), N)
    assert np.all(t < u) and np.all(t >= 0) and np.all(u < 1)
    # The smaller and the larger of two uniforms have means 1/3 and 2/3 and standard deviation sqrt(1/18).
    four_sigma = 4 * np.sqrt(1 / 18 / N)
    assert abs(t.mean() - 1 / 3) < four_sigma
    assert abs(u.mean() - 2 / 3) < four_sigma


def test_pairs_in_both_orders_are_independent():
    t, u = TimeLaw().pair(jax.random.key(0), N, both=True)
    ordered = TimeLaw().pair(jax.random.key(0), N)
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


@pytest.mark.parametrize("law", [{"name": "normal"}, {"logit_std": 0.0}])
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
