import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import interpolant, objectives, oracles, sampling
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError
from sgflow_jax.sampling import Sampler

ORACLE = oracles.gaussian_mixture((0.7, 0.3), (-1.0, 2.0), (0.5, 0.4))


def _noise(n=64):
    return jax.random.normal(jax.random.key(0), (n, 1))


def _renoise(n=64, name="linear"):
    return sampling.Renoise(interpolant.make(name), jax.random.split(jax.random.key(1), n))


@pytest.mark.parametrize("steps, grid", [(1, "uniform"), (5, "cosine")])
def test_the_exact_map_is_exact_in_any_number_of_steps_of_any_grid(steps, grid, x64):
    x0 = _noise()
    expected = ORACLE.flow_map(jnp.zeros(64), jnp.ones(64), x0)
    got = sampling.sample(ORACLE.average_velocity, x0, sampling.time_grid(steps, grid=grid))
    np.testing.assert_allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize("method, order", [("euler", 1), ("heun", 2)])
def test_order_of_convergence(method, order, x64):
    x0 = _noise()
    expected = ORACLE.flow_map(jnp.zeros(64), jnp.ones(64), x0)
    net = lambda t, u, x: ORACLE.velocity(t, x)  # noqa: E731

    def error(steps):
        return float(jnp.max(jnp.abs(sampling.sample(net, x0, jnp.linspace(0, 1, steps + 1), method) - expected)))

    assert abs(np.log2(error(128) / error(256)) - order) < 0.1


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_integrators_look_at_the_diagonal_only(method):
    net = lambda t, u, x: jnp.where((t == u)[:, None], x, jnp.nan)  # noqa: E731
    assert np.all(np.isfinite(sampling.sample(net, _noise(), jnp.linspace(0, 1, 4), method)))


@pytest.mark.parametrize("steps, name", [(1, "linear"), (4, "trigonometric")])
def test_consistency_sampling_with_the_exact_map_keeps_the_law_of_the_data(steps, name, x64):
    oracle, n = oracles.gaussian_mixture((0.7, 0.3), (-1.0, 2.0), (0.5, 0.4), name), 4_000
    net = lambda t, u, x: jnp.where((u == 1)[:, None], oracle.average_velocity(t, u, x), jnp.nan)  # noqa: E731
    x = sampling.sample(net, _noise(n), jnp.linspace(0, 1, steps + 1), "consistency", _renoise(n, name))
    for threshold, probability in [(-1.0, 0.35), (0.5, 0.7), (2.0, 0.85)]:
        assert abs(np.mean(np.asarray(x) < threshold) - probability) < 4 * np.sqrt(0.25 / n)
    mean, variance = -0.1, 0.7 * (0.25 + 0.81) + 0.3 * (0.16 + 4.41)
    assert abs(np.mean(x) - mean) < 4 * np.sqrt(variance / n) and abs(np.var(x) / variance - 1) < 0.08


def test_consistency_sampling_draws_fresh_noise_at_every_step_for_every_example():
    """With F = 0, a step to time u makes u x + (1 - u) noise: independent noises add in squares."""
    n, (a, b) = 20_000, (0.5, 0.6)
    zero, times = lambda t, u, x: 0 * x, jnp.array([0.0, a, b, 1.0])
    x = sampling.sample(zero, jnp.zeros((n, 2)), times, "consistency", _renoise(n))
    variance = (1 - b) ** 2 + (b * (1 - a)) ** 2
    np.testing.assert_allclose(np.cov(x.T), variance * np.eye(2), atol=0.05 * variance)
    assert len(np.unique(x)) > 1.9 * n


def test_consistency_sampling_needs_renoise():
    with pytest.raises(InputError, match="pass renoise"):
        sampling.sample(ORACLE.average_velocity, _noise(), jnp.linspace(0, 1, 3), "consistency")


@pytest.mark.parametrize("method, calls", [("flow_map", 5), ("euler", 5), ("heun", 6), ("consistency", 5)])
def test_network_calls_are_what_was_asked_for(method, calls):
    counted = []

    def net(t, u, x):
        jax.debug.callback(lambda: counted.append(1))
        return x

    sampling.sample(net, _noise(), sampling.time_grid(calls, method), method, _renoise())
    jax.effects_barrier()
    assert len(counted) == calls


def test_grids_by_hand():
    by_hand = {
        "uniform": [0, 1 / 4, 1 / 2, 3 / 4, 1],
        "quadratic": [0, 7 / 16, 3 / 4, 15 / 16, 1],
        "cosine": [0, (1 - 0.5**0.5) / 2, 1 / 2, (1 + 0.5**0.5) / 2, 1],
    }
    assert set(by_hand) == set(sampling.GRIDS)
    for grid, times in by_hand.items():
        np.testing.assert_allclose(sampling.time_grid(4, grid=grid), times, rtol=1e-7)
        np.testing.assert_array_equal(sampling.time_grid(8, "heun", grid), sampling.time_grid(4, grid=grid))
    np.testing.assert_array_equal(sampling.time_grid(4), sampling.time_grid(4, grid="uniform"))


def test_listed_times():
    sgflow = objectives.make("sgflow")
    sampler = Sampler(sgflow, grid="0, .40,0.75,1.0")
    assert sampler.grid == "0,0.4,0.75,1" and sampler.choose(None) == (3,)
    np.testing.assert_array_equal(sampler.times(3), np.float32([0, 0.4, 0.75, 1]))
    with pytest.raises(InputError, match="0,0.4,0.75,1 spend 3 network calls with flow_map, not 2: ask for 3"):
        sampler.choose((2,))
    assert Sampler(sgflow, "heun", "0,0.4,1").choose(None) == (4,)


@pytest.mark.parametrize(
    "text",
    ["0,1,0.5", "0,0.5,0.5,1", "0.1,1", "0,0.9", "0,nan,1", "0,x,1", "0,,1", "0,1e-50,1", "0,1e-9,2e-9,1,2", ","]
    + [",".join(map(str, np.linspace(0, 1, 34)))],
)
def test_times_that_do_not_run_from_0_to_1(text):
    with pytest.raises(InputError, match="use 2 to 33 numbers that increase from 0 to 1, like 0,0.4,1") as error:
        Sampler(objectives.make("sgflow"), grid=text)
    assert len(str(error.value)) < 150


@pytest.mark.parametrize("grid", sampling.GRIDS)
def test_grids_run_from_noise_to_data_exactly(grid):
    for steps in (1, 2, 3, 7, 100):
        times = np.asarray(sampling.time_grid(steps, grid=grid))
        assert times.shape == (steps + 1,) and times.dtype == np.float32
        assert times[0] == 0 and times[-1] == 1 and np.all(np.diff(times) > 0)


def test_times_may_be_uneven_and_start_anywhere():
    """Constant velocity 2 from 0.1 to 0.7."""
    net = lambda t, u, x: jnp.full_like(x, 2.0)  # noqa: E731
    for method in ("flow_map", "euler", "heun"):
        got = sampling.sample(net, jnp.zeros((1, 1)), jnp.array([0.1, 0.2, 0.7]), method)
        np.testing.assert_allclose(got, 1.2, rtol=1e-6)


@pytest.mark.parametrize("method", sampling.METHODS)
def test_a_sample_is_its_steps(method, x64):
    times = jnp.array([0.1, 0.2, 0.7, 0.9])
    x = _noise()
    for index in range(3):
        x = sampling.step(ORACLE.average_velocity, x, index, times[index], times[index + 1], method, _renoise())
    expected = sampling.sample(ORACLE.average_velocity, _noise(), times, method, _renoise())
    np.testing.assert_allclose(x, expected, rtol=1e-12)


def test_bad_requests():
    with pytest.raises(InputError, match="'rk4'.*flow_map, euler, heun, consistency"):
        sampling.sample(ORACLE.average_velocity, _noise(), jnp.linspace(0, 1, 3), "rk4")
    with pytest.raises(InputError, match="heun cannot spend 3.*multiple of 2"):
        sampling.time_grid(3, "heun")
    with pytest.raises(InputError, match="cannot spend 0"):
        sampling.time_grid(0)
    with pytest.raises(InputError, match="unknown grid 'linear': use one of uniform, quadratic, cosine$"):
        sampling.time_grid(4, grid="linear")


def test_an_objective_is_sampled_where_it_was_trained():
    allowed = {name: ("flow_map", "euler", "heun") for name in objectives.names()}
    allowed |= {"flow_matching": ("euler", "heun"), "consistency": ("consistency",)}
    for name, methods in allowed.items():
        objective = objectives.make(name)
        assert Sampler(objective).method == methods[0]
        for method in sampling.METHODS:
            if method in methods:
                assert Sampler(objective, method).method == method
            else:
                with pytest.raises(InputError, match=f"{type(objective).__name__}.*{method} cannot.*{methods[0]}"):
                    Sampler(objective, method)
    with pytest.raises(InputError, match="'rk4'.*flow_map"):
        Sampler(objectives.make("sgflow"), "rk4")
    with pytest.raises(InputError, match="unknown grid 'linear'"):
        Sampler(objectives.make("sgflow"), grid="linear")
    assert Sampler(objectives.make("sgflow", direction="both"), "heun").method == "heun"


def test_only_as_many_calls_as_there_are_jumps_for():
    shortcut, sgflow = objectives.make("shortcut", num_steps=8), objectives.make("sgflow")
    with pytest.raises(InputError, match="Shortcut.*cannot sample it in 3 steps: use 1, 2, 4, 8, or the method euler"):
        Sampler(shortcut).times(3)
    with pytest.raises(InputError, match="heun cannot spend 3"):
        Sampler(shortcut, "heun").times(3)
    candidates = (1, 2, 3, 4, 8, 16)
    assert Sampler(shortcut).possible(candidates) == (1, 2, 4, 8)
    assert Sampler(shortcut, "euler").possible(candidates) == candidates
    assert Sampler(shortcut, "heun").possible(candidates) == (2, 4, 8, 16)
    assert Sampler(sgflow).possible(candidates) == candidates
    assert Sampler(sgflow, "heun").possible((1, 3)) == ()


@pytest.mark.parametrize("grid", ["quadratic", "0,0.4,0.5,0.6,1"])
def test_jumps_of_certain_sizes_need_the_uniform_grid(grid):
    shortcut, sgflow = objectives.make("shortcut", num_steps=8), objectives.make("sgflow")
    message = f"Shortcut.*cannot sample it on the {grid} grid: use uniform, or the method euler$"
    with pytest.raises(InputError, match=message):
        Sampler(shortcut, grid=grid)
    for sampler in (Sampler(shortcut, "euler", grid), Sampler(sgflow, grid=grid)):
        assert 4 in sampler.possible((1, 2, 4))
        np.testing.assert_array_equal(sampler.times(4), sampling.time_grid(4, grid=grid))


def test_the_usual_calls_unless_asked_for_others():
    sampler = Sampler(objectives.make("shortcut", num_steps=4))
    assert sampler.choose(None, (1, 3, 4)) == (1, 4)
    assert sampler.choose((2, 1), (1, 3, 4)) == (2, 1)
    with pytest.raises(InputError, match="in 3 steps"):
        sampler.choose((1, 3), (1, 3, 4))
    with pytest.raises(InputError, match="in 3 steps"):
        sampler.choose(None, (3, 5))


def test_consistency_sampling_has_no_velocity_to_guide():
    objective = objectives.make("consistency")
    assert Sampler(objective, guidance=Guidance(1.0, 0.2, 0.8)).method == "consistency"
    with pytest.raises(InputError, match="no velocity to guide: leave out --guidance"):
        Sampler(objective, guidance=Guidance(2.0))


def test_renoise_is_on_the_interpolant_of_the_objective():
    keys = jax.random.split(jax.random.key(0), 2)
    renoise = Sampler(objectives.make("consistency", interpolant="trigonometric")).renoise(keys)
    assert renoise.interpolant == interpolant.make("trigonometric") and renoise.keys is keys
