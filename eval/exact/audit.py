"""Whether an objective is stationary at the exact flow map: its expected gradient there and at wrong maps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eval.tables import store, variants
from sgflow_jax import flow_map, objectives, oracles
from sgflow_jax.interfaces import squared_norm
from sgflow_jax.objectives.base import FlowMapObjective, Objective, OffDiagonalLoss, velocity
from sgflow_jax.times import Domain

BATCH = 1024


CHUNK = 16  # batches between looks at the standard error


MIN_CHUNKS = 4  # before the first look: the error of few batches is itself uncertain


RESOLVED = 0.1  # the largest standard error, relative to the gradient at a wrong map, that lets a row say "stops"


TRAINED = 10**9  # a training step after every warm-up and schedule


RESPONSE = (0.2, 0.4)  # errors of the velocity


OFF_DIAGONAL = 3


PERTURBATION = 0.3  # theta_k at the perturbed map


# Laws that nothing was tuned on.
LAWS = {
    "mixture": (lambda path: oracles.gaussian_mixture((0.5, 0.3, 0.2), (-1.2, 1.0, 2.8), (0.5, 0.35, 0.25), path), 1),
    "gaussian": (lambda path: oracles.gaussian([0.8, -0.5], [[1.6, 0.7], [0.7, 0.6]], path), 2),
}


@dataclasses.dataclass(frozen=True)
class KeepsNoise(FlowMapObjective):
    """A control: |D f|^2 + noise |(d_x f) e|^2. sgflow has noise = -1; 0 is uncorrected, 1 has the wrong sign."""

    noise: float = 0.0

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        e = examples.dx_t - jax.lax.stop_gradient(velocity(net, teacher, t, x_t))
        Df, Je = flow_map.derivatives(
            net, t, u, x_t, flow_map.backward_tangent(t, examples.dx_t), flow_map.spatial_tangent(t, e)
        )
        return OffDiagonalLoss(squared_norm(Df) + self.noise * squared_norm(Je))


CONTROLS = {
    "control: |D f|^2 uncorrected": KeepsNoise(),
    "control: correction of the wrong sign": KeepsNoise(noise=1.0),
    "control: mean_flow(weight=adaptive)": objectives.make("mean_flow", weight="adaptive"),
    "control: improved_mean_flow(weight=adaptive)": objectives.make(
        "improved_mean_flow", weight="adaptive", weight_offset=1e-3
    ),
}


# A symmetric law cannot tell these from the truth.
ASYMMETRIC_ONLY = [name for name in CONTROLS if "adaptive" in name]


# The discretised objectives, ever finer.
_INTERVALS = (8, 32, 128)


SERIES = {
    "consistency": [f"consistency(initial_intervals={n},final_intervals={n})" for n in _INTERVALS],
    "ctm": [f"ctm(intervals={n})" for n in _INTERVALS],
    "shortcut": [f"shortcut(num_steps={n})" for n in (2, 8, 32)],
}


class Expectation(NamedTuple):
    """An expected gradient, [K]: its estimate, standard error, and the examples used."""

    gradient: np.ndarray
    standard_error: np.ndarray
    samples: int

    @property
    def z(self) -> float:
        """The largest component, in standard errors. A component without noise must be rounding to count as 0."""
        rounding = 1e-10
        return float(np.max(np.abs(self.gradient) / np.maximum(self.standard_error, rounding)))

    def flat(self) -> dict:
        return {
            "z": self.z,
            "gradient": self.gradient.tolist(),
            "standard_error": self.standard_error.tolist(),
            "trace": float(np.sum(self.samples * self.standard_error**2)),  # of the covariance for one example
            "samples": self.samples,
        }


def _basis(t, u, x):
    """phi_k(t, u, x), [K, B, D]: directions in which the network can err. The last OFF_DIAGONAL vanish on t = u."""
    t, u = t[:, None], u[:, None]
    y = jnp.roll(x, 1, axis=1)
    return jnp.stack(
        [
            jnp.tanh(x) * (1 + t + u),
            jnp.sin(2 * x) * (1 - t),
            jnp.tanh(y - 1) * u,
            (u - t) * x,
            (u - t) * jnp.cos(x + u),
            (u - t) * jnp.tanh(y + t),
        ]
    )


def gradients(objective: Objective, oracle: oracles.Oracle, dim: int, taught: bool) -> Callable:
    """A function of (theta [K], truth, error, keys [n]) to gradients [n, K], one for each batch.

    truth: 1 starts from the exact average velocity, 0 from the velocity v(t, x) in its place. error: of the teacher's
    velocity, if the objective is `taught`.
    """

    def gradient(theta, truth, error, key):
        key_noise, key_data, key_loss = jax.random.split(key, 3)
        x0, x1 = jax.random.normal(key_noise, (BATCH, dim)), oracle.sample(key_data, BATCH)

        def teacher(t, u, x):
            return oracle.velocity(t, x) + error * jnp.sin(1.5 * x + 1 + t[:, None])

        def loss(theta):
            def net(t, u, x):
                start = truth * oracle.average_velocity(t, u, x) + (1 - truth) * oracle.velocity(t, x)
                return start + jnp.tensordot(theta, _basis(t, u, x), axes=1)

            out = objective(net, x0, x1, key_loss, TRAINED, teacher if taught else None)
            return jnp.mean(out.per_example)

        return jax.grad(loss)(theta)

    return jax.jit(lambda theta, truth, error, keys: jax.lax.map(lambda key: gradient(theta, truth, error, key), keys))


def expect(chunk: Callable[[jax.Array], jax.Array], seed: int, enough: Callable, max_samples: int) -> Expectation:
    """Samples chunks of batches until `enough` of the expectation, or max_samples."""
    chunks = []
    while True:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), len(chunks)), CHUNK)
        chunks.append(np.asarray(chunk(keys)))
        all_batches = np.concatenate(chunks)
        variance = all_batches.var(axis=0, ddof=1)
        found = Expectation(
            all_batches.mean(axis=0),
            np.sqrt(variance / len(all_batches)),
            BATCH * len(all_batches),
        )
        if found.samples >= max_samples or (len(chunks) >= MIN_CHUNKS and enough(found)):
            return found


def _response(objective: Objective, oracle: oracles.Oracle, dim: int, seed: int, max_samples: int) -> dict:
    """How the gradient at the exact map grows with an error of the velocity: norms, and the order of their growth."""
    taught = gradients(objective, oracle, dim, taught=True)
    zero = jnp.zeros(len(_basis(jnp.zeros(1), jnp.zeros(1), jnp.zeros((1, dim)))))

    def change(error, keys):
        return taught(zero, 1.0, error, keys) - taught(zero, 1.0, 0.0, keys)  # the same examples: most noise cancels

    found = [
        expect(functools.partial(change, error), seed, lambda found: found.z > 20, max_samples) for error in RESPONSE
    ]
    norms = [float(np.linalg.norm(each.gradient)) for each in found]
    noise = float(np.linalg.norm(found[0].standard_error))
    order = float(np.log2(norms[1] / norms[0])) if norms[0] > 2 * noise else None
    return {"errors": RESPONSE, "norms": norms, "standard_error": noise, "order": order}


def verdict(row: store.Row) -> str:
    """What a row says, in a word or two."""
    name, z = row["objective"], row["exact"]["z"]
    if name in CONTROLS:
        if row["law"] == "gaussian" and name in ASYMMETRIC_ONLY:
            return "control, not visible on a symmetric law"
        return "control, caught" if z > 8 else "CONTROL MISSED"
    objective = variants.parse(name).make()
    moves = min(row[wrong]["z"] for wrong in _wrong_maps(objective))
    if moves <= 8:
        return "FAILS: a wrong map does not move it"
    if not objective.exact:
        return "biased" if z > 4 else "bias not visible"
    if z > 4:
        return "FAILS"
    scale = np.abs(row["perturbed"]["gradient"]).max()
    return "stops" if max(row["exact"]["standard_error"]) < RESOLVED * scale else "unclear: too few samples"


def _wrong_maps(objective: Objective) -> tuple[str, ...]:
    """Flow matching does not look at the map off the diagonal, where these two are wrong, so only one counts."""
    return ("perturbed",) if objective.domain is Domain.DIAGONAL else ("perturbed", "velocity")


def bias(row: store.Row) -> float:
    """The norm of the expected gradient at the exact map, relative to that at the perturbed one."""
    return float(np.linalg.norm(row["exact"]["gradient"]) / np.linalg.norm(row["perturbed"]["gradient"]))


def noise(row: store.Row) -> float | None:
    """Examples for a standard error as large as the gradient at the perturbed map, both off the diagonal only.

    The trace of the covariance at the exact map over the squared norm, for the directions that vanish on t = u. None
    for an objective that has no such gradient, or where it is not clear of its own error.
    """
    variances = row["exact"]["samples"] * np.square(row["exact"]["standard_error"][-OFF_DIAGONAL:])
    gradient, error = (np.square(row["perturbed"][key][-OFF_DIAGONAL:]) for key in ("gradient", "standard_error"))
    signal = np.sum(gradient - error)  # the square of an estimate is too large by the square of its error
    return float(variances.sum() / signal) if signal > 4 * np.sum(error) else None


def measure(settings: store.Settings) -> store.Row:
    """One row: an objective on a law."""
    name, seed, max_samples = settings["objective"], settings["seed"], settings["max_samples"]
    objective = CONTROLS[name] if name in CONTROLS else variants.parse(name).make()
    make_law, dim = LAWS[settings["law"]]
    oracle = make_law(objective.interpolant)
    size = len(_basis(jnp.zeros(1), jnp.zeros(1), jnp.zeros((1, dim))))
    zero, perturbed = jnp.zeros(size), jnp.full(size, PERTURBATION)

    own = gradients(objective, oracle, dim, taught=False)
    clear = lambda found: found.z > 20  # noqa: E731
    wrong = {
        "perturbed": expect(lambda keys: own(perturbed, 1.0, 0.0, keys), seed, clear, max_samples),
        "velocity": expect(lambda keys: own(zero, 0.0, 0.0, keys), seed, clear, max_samples),
    }
    scale = np.abs(wrong["perturbed"].gradient).max()
    exact = expect(
        lambda keys: own(zero, 1.0, 0.0, keys),
        seed + 1,
        lambda found: found.standard_error.max() < settings["tolerance"] * scale,
        max_samples,
    )
    row = {"exact": exact.flat(), **{name: found.flat() for name, found in wrong.items()}, "response": None}
    if objective.takes_teacher and name not in CONTROLS:
        row["response"] = _response(objective, oracle, dim, seed, max_samples)
    return row
