"""Whether an objective is stationary at the exact flow map: its expected gradient there and at wrong maps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eval.exact.controls import ASYMMETRIC_ONLY, CONTROLS
from eval.tables import store, variants
from sgflow_jax import oracles
from sgflow_jax.guidance import with_null
from sgflow_jax.objectives.base import Objective
from sgflow_jax.times import Domain

BATCH = 1024
CHUNK = 16  # batches between checks of the standard error
MIN_CHUNKS = 4  # before the first check: few batches estimate their own error poorly
RESOLVED = 0.1  # the largest standard error, relative to the gradient at a wrong map, for the verdict "stops"
RESPONSE = (0.2, 0.4)  # errors of the velocity
PERTURBATION = 0.3  # theta_k at the perturbed map
DIRECTIONS, OFF_DIAGONAL = 6, 3  # functions phi_k; the last so many of them vanish on t = u

# Nothing was tuned on these laws.
LABELLED = "labelled"
LAWS = {
    "mixture": (lambda path: oracles.gaussian_mixture((0.5, 0.3, 0.2), (-1.2, 1.0, 2.8), (0.5, 0.35, 0.25), path), 1),
    "gaussian": (lambda path: oracles.gaussian([0.8, -0.5], [[1.6, 0.7], [0.7, 0.6]], path), 2),
    LABELLED: (
        lambda path: oracles.labelled_mixture(
            (0.6, 0.4), [((0.6, 0.4), (-1.4, 0.8), (0.5, 0.35)), ((0.5, 0.5), (-0.2, 2.2), (0.4, 0.6))], 1.0, path
        ),
        1,
    ),
}
NULL_SHARE = 0.25  # of the labelled examples, trained with the null class

# The discretised objectives, from coarse to fine.
_INTERVALS = (8, 32, 128)
SERIES = {
    "consistency": [f"consistency(initial_intervals={n},final_intervals={n})" for n in _INTERVALS],
    "ctm": [f"ctm(intervals={n})" for n in _INTERVALS],
    "shortcut": [f"shortcut(num_steps={n})" for n in (2, 8, 32)],
}


class Expectation(NamedTuple):
    """An estimate of an expected gradient [DIRECTIONS], its standard error, and the number of examples."""

    gradient: np.ndarray
    standard_error: np.ndarray
    samples: int

    @property
    def z(self) -> float:
        """The largest component in standard errors. One without noise counts as 0 only at the size of rounding."""
        rounding = 1e-10
        return float(np.max(np.abs(self.gradient) / np.maximum(self.standard_error, rounding)))

    def flat(self) -> dict:
        return {
            "z": self.z,
            "gradient": self.gradient.tolist(),
            "standard_error": self.standard_error.tolist(),
            "trace": float(np.sum(self.samples * self.standard_error**2)),  # of one example's covariance
            "samples": self.samples,
        }


def _basis(t, u, x):
    """phi_k(t, u, x), [DIRECTIONS, B, D]: directions of error. The last OFF_DIAGONAL vanish on t = u."""
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


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The network F = F_exact + sum_k theta_k phi_k of a law. truth: 1, or 0 for its velocity in place of F_exact.
    label: [B], for the labelled law; each class then has its own phi_k, with factors of either sign, since the mean of
    v_c - v_null over the classes of a point is 0. average: theta of the averaged network. masks: [B, DIRECTIONS],
    errors of theta whose mean is 0, in the place of dropout; None without it."""

    law: oracles.Oracle | oracles.LabelledMixture
    truth: float
    theta: jax.Array
    label: jax.Array | None = None
    average: jax.Array | None = None
    masks: jax.Array | None = None

    def __call__(self, t, u, x):
        given = () if self.label is None else (self.label,)
        velocity = self.law.velocity(t, x, *given)
        # F(t, t, x) is the velocity: one call instead of the steps of a solver.
        exact = velocity if u is t else self.law.average_velocity(t, u, x, *given)

        phi = self._phi(t, u, x)
        dropped = 0 if self.masks is None else jnp.einsum("bk,kbd->bd", self.masks, phi)
        return self.truth * exact + (1 - self.truth) * velocity + jnp.tensordot(self.theta, phi, axes=1) + dropped

    def _phi(self, t, u, x):
        if self.label is None:
            return _basis(t, u, x)
        label = self.label[:, None].astype(x.dtype)
        return jnp.cos(2 * label)[None] * _basis(t, u, x + 0.7 * label)

    def restrict(self, select) -> "Candidate":
        label, masks = jax.tree.map(select, (self.label, self.masks))
        return dataclasses.replace(self, label=label, masks=masks)

    def unconditional(self) -> "Candidate":
        return dataclasses.replace(self, label=jnp.full_like(self.label, self.law.num_classes))

    def has_class(self) -> jax.Array:
        return self.label < self.law.num_classes

    def without_dropout(self) -> "Candidate":
        return dataclasses.replace(self, masks=None)

    def averaged(self) -> "Candidate":
        return dataclasses.replace(self, theta=self.average)

    def log_loss(self, t, u) -> jax.Array:
        """Any function of the times will do: a learned weight keeps a stationary point whatever it has learned."""
        return jnp.sin(3 * t) + u**2 - 0.5


def _data(law: oracles.Oracle | oracles.LabelledMixture, key: jax.Array):
    """A batch: x1, and label and alike as `guidance.with_null` has them, None without labels."""
    if not isinstance(law, oracles.LabelledMixture):
        return law.sample(key, BATCH), None, None
    key_data, key_label = jax.random.split(key)
    x1, own = law.sample(key_data, BATCH)
    return x1, *with_null(key_label, own, NULL_SHARE, law.num_classes)


def gradient(
    objective: Objective,
    oracle: oracles.Oracle | oracles.LabelledMixture,
    dim: int,
    taught: bool = False,
    average: jax.Array | None = None,
    dropout: float = 0.0,
) -> Callable:
    """The function (theta [DIRECTIONS], truth, error, key) -> the gradient of one batch, [DIRECTIONS].

    truth: 1 starts from the exact average velocity, 0 from the velocity v(t, x) instead. taught: gives the objective a
    teacher, with this `error` of its velocity. average: theta of the averaged network; by default that of the network.
    dropout: the size of the random errors that stand for dropout, see `Candidate`.
    """

    def of_batch(theta, truth, error, key):
        key_noise, key_data, key_loss = jax.random.split(key, 3)
        x0 = jax.random.normal(key_noise, (BATCH, dim))
        x1, label, alike = _data(oracle, key_data)
        signs = jax.random.rademacher(jax.random.fold_in(key, 3), (BATCH, DIRECTIONS), x0.dtype)
        masks, averaged = dropout * signs if dropout else None, theta if average is None else average

        def teacher(t, u, x):
            return oracle.velocity(t, x) + error * jnp.sin(1.5 * x + 1 + t[:, None])

        def loss(theta):
            net = Candidate(oracle, truth, theta, label, jax.lax.stop_gradient(averaged), masks)
            out = objective(net, x0, x1, key_loss, variants.TRAINED, teacher if taught else None, alike)
            return jnp.mean(out.per_example)

        return jax.grad(loss)(theta)

    return of_batch


def of_batches(of_batch: Callable) -> Callable:
    """What `gradient` returns, compiled for many batches: (theta, truth, error, keys [n]) -> gradients [n, ...]."""
    return jax.jit(lambda theta, truth, error, keys: jax.lax.map(lambda key: of_batch(theta, truth, error, key), keys))


def expect(chunk: Callable[[jax.Array], jax.Array], seed: int, enough: Callable, max_samples: int) -> Expectation:
    """Samples chunks of CHUNK batches until `enough` accepts the estimate, or max_samples is reached."""
    chunks = []
    while True:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), len(chunks)), CHUNK)
        chunks.append(np.asarray(chunk(keys)))
        all_batches = np.concatenate(chunks)
        variance = all_batches.var(axis=0, ddof=1)
        found = Expectation(all_batches.mean(axis=0), np.sqrt(variance / len(all_batches)), BATCH * len(all_batches))
        if found.samples >= max_samples or (len(chunks) >= MIN_CHUNKS and enough(found)):
            return found


def _is_clear(found: Expectation) -> bool:
    return found.z > 20


def _response(objective: Objective, oracle: oracles.Oracle, dim: int, seed: int, max_samples: int) -> dict:
    """The gradient at the exact map under errors of the velocity: its norms, and the order of their growth."""
    taught, zero = of_batches(gradient(objective, oracle, dim, taught=True)), jnp.zeros(DIRECTIONS)

    def change(error, keys):
        return taught(zero, 1.0, error, keys) - taught(
            zero, 1.0, 0.0, keys=keys
        )  # the same examples, so most noise cancels

    found = [expect(functools.partial(change, error), seed, _is_clear, max_samples) for error in RESPONSE]
    norms = [float(np.linalg.norm(each.gradient)) for each in found]
    noise = float(np.linalg.norm(found[0].standard_error))
    order = float(np.log2(norms[1] / norms[0])) if norms[0] > 2 * noise else None
    return {"errors": RESPONSE, "norms": norms, "standard_error": noise, "order": order}


def verdict(row: store.Values) -> str:
    """The conclusion from a row, in a few words."""
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
    """The velocity as the map is wrong off the diagonal only, which flow matching does not see."""
    return ("perturbed",) if objective.domain is Domain.DIAGONAL else ("perturbed", "velocity")


def bias(row: store.Values) -> float:
    """The norm of the expected gradient at the exact map, relative to that at the perturbed map."""
    return float(np.linalg.norm(row["exact"]["gradient"]) / np.linalg.norm(row["perturbed"]["gradient"]))


def noise(row: store.Values) -> float | None:
    """The number of examples whose mean gradient has a standard error as large as the gradient at the perturbed map.

    The trace of the covariance at the exact map over that squared norm, for the directions that vanish on t = u. None
    if the objective has no gradient in them, or none clear of its own error.
    """
    variances = row["exact"]["samples"] * np.square(row["exact"]["standard_error"][-OFF_DIAGONAL:])
    gradient, error = (np.square(row["perturbed"][key][-OFF_DIAGONAL:]) for key in ("gradient", "standard_error"))
    signal = np.sum(gradient - error)  # an estimate's square is too large by the square of its error
    return float(variances.sum() / signal) if signal > 4 * np.sum(error) else None


def make(name: str) -> Objective:
    """The control, objective or variant with this name."""
    return CONTROLS[name] if name in CONTROLS else variants.parse(name).make()


def suits(name: str, law: str) -> bool:
    """Whether a law shows what an objective does: the labelled law is for guidance, and guidance needs labels."""
    return (law == LABELLED) == (make(name).guidance != 1)


def measure(settings: store.Settings) -> store.Values:
    """Measures one row: an objective on a law. With labels, the truth has the guidance of the objective."""
    name, seed, max_samples = settings["objective"], settings["seed"], settings["max_samples"]
    objective = make(name)
    make_law, dim = LAWS[settings["law"]]
    oracle = make_law(objective.interpolant)
    if settings["law"] == LABELLED:
        oracle = dataclasses.replace(oracle, guidance=objective.guidance)
    zero, perturbed = jnp.zeros(DIRECTIONS), jnp.full(DIRECTIONS, PERTURBATION)

    own = of_batches(gradient(objective, oracle, dim))
    wrong = {
        "perturbed": expect(lambda keys: own(perturbed, 1.0, 0.0, keys), seed, _is_clear, max_samples),
        "velocity": expect(lambda keys: own(zero, 0.0, 0.0, keys), seed, _is_clear, max_samples),
    }
    scale = np.abs(wrong["perturbed"].gradient).max()
    exact = expect(
        lambda keys: own(zero, 1.0, 0.0, keys),
        seed + 1,
        lambda found: found.standard_error.max() < settings["tolerance"] * scale,
        max_samples,
    )
    row = {"exact": exact.flat(), **{name: found.flat() for name, found in wrong.items()}, "response": None}
    if objective.takes_teacher and name not in CONTROLS and settings["law"] != LABELLED:
        row["response"] = _response(objective, oracle, dim, seed, max_samples)
    return row
