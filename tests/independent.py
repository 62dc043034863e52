"""The losses as their papers state them: NumPy in float64, every derivative a finite difference.

Nothing here is shared with the code it judges. In each loss `params` are the parameters that are differentiated, and
`frozen`, equal in value, are those inside a stop-gradient: moving `params` alone then moves the loss as its gradient
says. Losses return [B], residuals [B, D].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

D, WIDTH, CLASSES = 2, 5, 3
SHAPES = {"W": (D + 2, WIDTH), "V": (WIDTH, D)}
LABELLED = {**SHAPES, "labels": (CLASSES + 1, WIDTH)}  # the last is the null class


def parameters(rng, shapes=SHAPES):
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def of_classes(params, label):
    """The parameters of the network for examples with these labels, [B]."""
    return {"W": params["W"], "V": params["V"], "bias": params["labels"][label]}


def network(xp, params, t, u, x):
    """A small network that can be evaluated by NumPy and by JAX."""
    features = xp.concatenate([x, t[:, None], u[:, None]], axis=1)
    return xp.tanh(features @ params["W"] + params.get("bias", 0)) @ params["V"]


# alpha, sigma and their derivatives.
PATHS = {
    "linear": (lambda t: 1 - t, lambda t: t, lambda t: 0 * t - 1, lambda t: 0 * t + 1),
    "trigonometric": (
        lambda t: np.cos(np.pi * t / 2),
        lambda t: np.sin(np.pi * t / 2),
        lambda t: -np.pi / 2 * np.sin(np.pi * t / 2),
        lambda t: np.pi / 2 * np.cos(np.pi * t / 2),
    ),
}


def sample(path, t, x0, x1):
    alpha, sigma, dalpha, dsigma = (schedule(t)[:, None] for schedule in path)
    return alpha * x0 + sigma * x1, dalpha * x0 + dsigma * x1


def mean_velocity(path, t, x0, x1, data):
    """E[dx_t | x_t, data], example by example: each of the data, with the noise that makes x_t of it. data: an array,
    or a list with one for each example."""
    means, whole = [], data
    for i, x_t in enumerate(sample(path, t, x0, x1)[0]):
        alpha, sigma, dalpha, dsigma = (schedule(t[i]) for schedule in path)
        data = whole[i] if isinstance(whole, list) else whole
        noise = [(x_t - sigma * datum) / alpha for datum in data]
        density = np.array([np.exp(-np.sum(z**2) / 2) for z in noise])
        velocities = [dalpha * z + dsigma * datum for z, datum in zip(noise, data, strict=True)]
        means.append(sum(w * v for w, v in zip(density / density.sum(), velocities, strict=True)))
    return np.array(means)


def draw(path, t, x0, x1, batch):
    """x_t, and dx_t or its mean given the batch."""
    x_t, dx_t = sample(path, t, x0, x1)
    return x_t, dx_t if batch is None else mean_velocity(path, t, x0, x1, batch)


class At(NamedTuple):
    """Examples, and what else a loss was given.

    x, dx: at time t, of the pairs (x0, x1) on a path. batch: the data over which dx is a mean; None, and it is that of
    the pair. teacher: its velocity as a function of t and x, or None. s: a time that the objective chose. guide: makes
    the guided velocity of t, x and dx.
    """

    t: np.ndarray
    u: np.ndarray
    x: np.ndarray
    dx: np.ndarray
    x0: np.ndarray
    x1: np.ndarray
    path: tuple
    batch: np.ndarray | None = None
    teacher: Callable | None = None
    s: np.ndarray | None = None
    guide: Callable = lambda t, x, dx: dx

    @classmethod
    def of(cls, t, u, x0, x1, path, batch=None, **more):
        x, dx = draw(path, t, x0, x1, batch)
        at = cls(t, u, x, dx, x0, x1, path, batch, **more)
        return at._replace(dx=at.guide(t, x, dx))


def slope(function, h=1e-3):
    """d/dh function(h) at 0: central differences of sixth order."""
    weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    return sum(w * (function(k * h) - function(-k * h)) for k, w in weights.items()) / h


def square(residual):
    return np.sum(residual**2, axis=1)


def F(params, t, u, x):
    return network(np, params, t, u, x)


def f(params, t, u, x):
    return x + (u - t)[:, None] * F(params, t, u, x)


def velocity(params, at, t, x):
    """The teacher's, where there is one."""
    return F(params, t, t, x) if at.teacher is None else at.teacher(t, x)


def guided(weight, interval, params, label, t, x, v):
    """v + (W - 1) (v - v_null) where the label is a class and t in the interval, v elsewhere."""
    acts = (label != CLASSES) & (interval[0] <= t) & (t <= interval[1])
    v_null = F(of_classes(params, np.full(len(t), CLASSES)), t, t, x)
    return np.where(acts[:, None], v + (weight - 1) * (v - v_null), v)


def eulerian(params, at, v):
    """d_t f + (d_x f) v."""
    return slope(lambda h: f(params, at.t + h, at.u, at.x + h * v))


def spatial(params, at, v):
    """(d_x f) v."""
    return slope(lambda h: f(params, at.t, at.u, at.x + h * v))


def lagrangian(params, at, x):
    """d_u f(t, u, x)."""
    return slope(lambda h: f(params, at.t, at.u + h, x))


def flow_matching(params, frozen, at):
    return square(F(params, at.t, at.t, at.x) - at.dx)


def sgflow_residual(params, frozen, at):
    return eulerian(params, at, velocity(frozen, at, at.t, at.x))


def sgflow(params, frozen, at, lam=1.0):
    """Theorem 1, and for another correction its mixture with the loss that has none."""
    e = at.dx - velocity(frozen, at, at.t, at.x)
    theorem_1 = square(eulerian(params, at, at.dx)) - square(spatial(params, at, e))
    return lam * theorem_1 + (1 - lam) * square(sgflow_residual(params, frozen, at))


def sgflow_split(params, frozen, at, lam=1.0):
    vhat = velocity(frozen, at, at.t, at.x)
    noise = lam * (at.dx - vhat)
    plus, minus = square(eulerian(params, at, vhat + noise)), square(spatial(params, at, noise))
    return 2 * np.where(np.arange(len(at.t)) % 2 == 0, plus, -minus)


# MeanFlow's papers run from data, r = 0, to noise, tau = 1: z - (tau - r) u(z, r, tau) jumps from tau to r.


def _paper(at):
    return 1 - at.t, 1 - at.u, at.x


def _u(params, z, r, tau):
    return -F(params, 1 - tau, 1 - r, z)


def _du(params, z, r, tau, v):
    """d u / d tau along dz / d tau = v."""
    return slope(lambda h: _u(params, z + h * v, r, tau + h))


def mean_flow(params, frozen, at):
    tau, r, z = _paper(at)
    v = -at.dx if at.teacher is None else -velocity(params, at, at.t, at.x)
    target = v - (tau - r)[:, None] * _du(frozen, z, r, tau, v)
    return square(_u(params, z, r, tau) - target)


def _compound(params, frozen, at):
    """V and v of improved MeanFlow."""
    tau, r, z = _paper(at)
    v = -velocity(frozen, at, at.t, at.x)
    return _u(params, z, r, tau) + (tau - r)[:, None] * _du(frozen, z, r, tau, v), v


def improved_mean_flow(params, frozen, at):
    return square(_compound(params, frozen, at)[0] + at.dx)


def improved_mean_flow_residual(params, frozen, at):
    V, v = _compound(params, frozen, at)
    return V - v


def esd_full(params, frozen, at):
    d_t_f = slope(lambda h: f(params, at.t + h, at.u, at.x))
    return d_t_f + spatial(frozen, at, velocity(frozen, at, at.t, at.x))


def esd_convex(params, frozen, at):
    return eulerian(params, at, velocity(frozen, at, at.t, at.x))


def esd_none(params, frozen, at):
    return eulerian(params, at, velocity(params, at, at.t, at.x))


def slim_esd(params, frozen, at):
    """The Eulerian residual, frozen but for the F(t, u, x) in d_t f = -F + (u - t) d_t F."""
    return esd_convex(frozen, frozen, at) - (F(params, at.t, at.u, at.x) - F(frozen, at.t, at.u, at.x))


def lsd_convex(params, frozen, at):
    return lagrangian(params, at, at.x) - velocity(frozen, at, at.u, f(frozen, at.t, at.u, at.x))


def lsd_none(params, frozen, at):
    return lagrangian(params, at, at.x) - velocity(params, at, at.u, f(params, at.t, at.u, at.x))


def slim_lsd(params, frozen, at):
    """The Lagrangian residual, frozen but for the F(t, u, x) in d_u f = F + (u - t) d_u F."""
    return lsd_convex(frozen, frozen, at) + F(params, at.t, at.u, at.x) - F(frozen, at.t, at.u, at.x)


def _progressive(params, inner, at, s):
    two_jumps = f(inner, s, at.u, f(inner, at.t, s, at.x))
    return (f(params, at.t, at.u, at.x) - two_jumps) / (at.u - at.t)[:, None]


def psd_midpoint_convex(params, frozen, at):
    return _progressive(params, frozen, at, (at.t + at.u) / 2)


def psd_midpoint_none(params, frozen, at):
    return _progressive(params, params, at, (at.t + at.u) / 2)


def psd_uniform_convex(params, frozen, at):
    return _progressive(params, frozen, at, at.s)


def psd_uniform_none(params, frozen, at):
    return _progressive(params, params, at, at.s)


def fmm(params, frozen, at):
    x_u, dx_u = draw(at.path, at.u, at.x0, at.x1, at.batch)
    dx_u = at.guide(at.u, x_u, dx_u)
    y = f(params, at.u, at.t, x_u)
    return square(lagrangian(params, at, y) - dx_u) + square(f(params, at.t, at.u, y) - x_u)


def consistency_discrete(params, frozen, at, x_s=None):
    """x_s lies on the path of the pair, unless it is given."""
    x_s = sample(at.path, at.s, at.x0, at.x1)[0] if x_s is None else x_s
    return square(f(params, at.t, at.u, at.x) - f(frozen, at.s, at.u, x_s)) / (at.s - at.t)


def huber(squares, c):
    return np.sqrt(squares + c**2) - c


def consistency_ict(params, frozen, at, c):
    """Pseudo-Huber over the step of the noise level, which is infinite at t = 0."""
    r = f(params, at.t, at.u, at.x) - f(frozen, at.s, at.u, sample(at.path, at.s, at.x0, at.x1)[0])
    with np.errstate(divide="ignore"):
        return huber(square(r), c) / ((1 - at.t) / at.t - (1 - at.s) / at.s)


def consistency_distilled(params, frozen, at):
    """x_s is a step of Euler's method along the teacher, or along dx where there is none."""
    v = at.dx if at.teacher is None else velocity(frozen, at, at.t, at.x)
    return consistency_discrete(params, frozen, at, at.x + (at.s - at.t)[:, None] * v)


def consistency_continuous(params, frozen, at):
    v = at.dx if at.teacher is None else velocity(frozen, at, at.t, at.x)
    return square(f(params, at.t, at.u, at.x) - (f(frozen, at.t, at.u, at.x) + eulerian(frozen, at, v)))


def _ctm(params, frozen, at, intervals):
    """The difference at time 1, and s - t."""
    s, one = np.minimum(at.t + 1 / intervals, at.u), np.ones_like(at.t)
    x_s = at.x + (s - at.t)[:, None] * velocity(frozen, at, at.t, at.x)
    here, later = f(params, at.t, at.u, at.x), f(frozen, s, at.u, x_s)
    return f(frozen, at.u, one, here) - f(frozen, at.u, one, later), s - at.t


def ctm(params, frozen, at, intervals):
    difference, step = _ctm(params, frozen, at, intervals)
    return square(difference) / step


def ctm_residual(params, frozen, at, intervals):
    difference, step = _ctm(params, frozen, at, intervals)
    return difference / step[:, None]


def shortcut(params, frozen, at, num_steps):
    """A jump and two of half its size, of Euler's method under the smallest."""
    m = (at.t + at.u) / 2
    euler = np.isclose(at.u - at.t, 1 / num_steps)[:, None]

    def half(t, u, x):
        return np.where(euler, x + (u - t)[:, None] * velocity(frozen, at, t, x), f(frozen, t, u, x))

    return (f(params, at.t, at.u, at.x) - half(m, at.u, half(at.t, m, at.x))) / (at.u - at.t)[:, None]
