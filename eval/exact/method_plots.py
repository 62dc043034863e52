"""The figures of docs/method.md: paths and the map, the three equations, what the correction does.

All lines but the learned maps are exact: a Gaussian mixture on the line, whose flow map has a closed form.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from eval.figure import plt, png
from sgflow_jax import data

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLACK, GREY, BLUE, ORANGE, GREEN = "black", "0.75", "#0072B2", "#D55E00", "#009E73"
TIMES = np.linspace(0, 1, 81)
TEXT = {"ha": "center", "va": "center", "zorder": 6, "bbox": {"color": "white", "alpha": 0.8, "pad": 1}}
HIGHLIGHTED = 0.15  # the noise whose path is followed


# Each equation in words and in letters, and the objectives that square it.
EQUATIONS = (
    (
        "Eulerian: move the start along the flow,\nthe end stays",
        r"$\partial_t f + (\partial_x f)\,v(t, x) = 0$",
        "sgflow, mean_flow, improved_mean_flow, esd, slim_esd;\nin finite steps: consistency, ctm",
    ),
    (
        "Lagrangian: move the end time,\nthe end follows the velocity",
        r"$\partial_u f = v(u,\,f(t, u, x))$",
        "lsd, slim_lsd, fmm",
    ),
    (
        "semigroup: two jumps in a row\nequal one",
        r"$f(s, u, f(t, s, x)) = f(t, u, x)$",
        "psd; with steps of $2^{-k}$: shortcut",
    ),
)


def _exact(method: str = "flow_map") -> Callable:
    """f(t, u, x) or, with "velocity", v(t, x) of the mixture, for numbers or arrays."""
    function = getattr(data.oracle("mixture1d"), method)

    def call(*point):
        point = np.broadcast_arrays(*(np.asarray(a, np.float32) for a in point))
        *times, x = (jnp.asarray(a.ravel()) for a in point)
        return np.asarray(function(*times, x[:, None]))[:, 0].reshape(point[0].shape)

    return call


def _background(ax, count: int) -> None:
    """Paths from equally likely noise, and time from noise to data."""
    noise = norm.ppf((np.arange(count) + 0.5) / count)
    ax.plot(TIMES, _exact()(0, TIMES[:, None], noise), color=GREY, linewidth=0.8, zorder=1)
    ax.set(xlim=(-0.04, 1.04), xticks=[0, 1], xlabel="time, from noise to data")


def _jump(ax, start, end, colour, bend=0.0, label="", **options) -> None:
    style = {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 4, "shrinkB": 4}
    ax.annotate("", end, start, arrowprops={**style, "color": colour, "linewidth": 1.8, **options}, zorder=4)
    if label:
        ax.plot([], [], color=colour, label=label)


def _dots(ax, times, points, names, offsets) -> None:
    ax.scatter(times, points, color=BLACK, s=28, zorder=5)
    for t, x, name, offset in zip(times, points, names, offsets, strict=True):
        ax.annotate(name, (t, x), offset, textcoords="offset points", **TEXT)


def paths() -> bytes:
    """The ODE's paths with one jump along them, and the map f(0, u, x) at four times: PNG."""
    f, v = _exact(), _exact("velocity")
    t, u = 0.35, 0.9
    x_t, x_u = (float(f(0, time, HIGHLIGHTED)) for time in (t, u))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4), width_ratios=(1.5, 1), layout="constrained")

    _background(left, 30)
    left.plot(TIMES, f(0, TIMES, HIGHLIGHTED), color=BLACK, linewidth=2, label="one path of dx/ds = v(s, x)")
    _jump(left, (t, x_t), (u, x_u), BLUE, label="one jump f(t, u, x): its slope is F(t, u, x)")
    slope = float(v(t, x_t))
    _jump(left, (t, x_t), (t + 0.3, x_t + 0.3 * slope), ORANGE, label="slope v(t, x) = F(t, t, x)")
    _dots(left, [t, u], [x_t, x_u], ["x at t", "f(t, u, x) at u"], [(-4, 12), (-2, -16)])
    left.set(ylabel="x", ylim=(-3.2, 4.2), title="the flow carries noise to data")
    left.legend(loc="upper left", fontsize="small")

    x = np.linspace(-3, 3, 601)
    for time, style in zip((0.25, 0.5, 0.75, 1), (":", "-.", "--", "-"), strict=True):
        right.plot(x, f(0, time, x), style, color=BLUE, linewidth=1 + time, label=f"u = {time:g}")
    right.plot(x, x, color=GREY, linewidth=1, zorder=0, label="u = 0: f = x")
    right.set(xlabel="noise x", title="the map f(0, u, x)", ylim=(-3.2, 4.2))
    right.legend(loc="upper left", fontsize="small")
    return png(figure)


def equations() -> bytes:
    """What each of the three equations of the flow map says, and the objectives that square it: PNG."""
    f, v = _exact(), _exact("velocity")
    at = lambda time: float(f(0, time, HIGHLIGHTED))  # noqa: E731
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), sharey=True, layout="constrained")
    for ax, (title, formula, names) in zip(axes, EQUATIONS, strict=True):
        _background(ax, 16)
        ax.plot(TIMES, f(0, TIMES, HIGHLIGHTED), color=BLACK, linewidth=1.5, zorder=2)
        ax.set_title(f"{title}\n{formula}", fontsize="medium")
        ax.set_xlabel(f"time, from noise to data\n\nsquared by {names}", fontsize="small")
        ax.set_ylim(-2.6, 2.2)
    eulerian, lagrangian, semigroup = axes
    eulerian.set_ylabel("x")

    t, u, h = 0.1, 0.9, 0.2
    _jump(eulerian, (t, at(t)), (u, at(u)), BLUE, bend=-0.35)
    _jump(eulerian, (t + h, at(t + h)), (u, at(u)), ORANGE, bend=0.35)
    _dots(
        eulerian,
        [t, t + h, u],
        [at(time) for time in (t, t + h, u)],
        ["t", "t + h", "u"],
        [(-2, -12), (-8, -13), (6, -12)],
    )

    u = 0.65
    _jump(lagrangian, (t, at(t)), (u, at(u)), BLUE, bend=-0.35)
    _jump(lagrangian, (t, at(t)), (u + h, at(u + h)), ORANGE, bend=0.45)
    tip = u + 0.3, at(u) + 0.3 * float(v(u, at(u)))
    _jump(lagrangian, (u, at(u)), tip, GREEN)
    lagrangian.annotate("v(u, f)", tip, (-8, -12), textcoords="offset points", color=GREEN, **TEXT)
    _dots(
        lagrangian,
        [t, u, u + h],
        [at(time) for time in (t, u, u + h)],
        ["t", "u", "u + h"],
        [(-2, -12), (2, 12), (8, 12)],
    )

    s, u = 0.5, 0.9
    _jump(semigroup, (t, at(t)), (u, at(u)), BLUE, bend=-0.4)
    _jump(semigroup, (t, at(t)), (s, at(s)), ORANGE, bend=0.45)
    _jump(semigroup, (s, at(s)), (u, at(u)), ORANGE, bend=0.45)
    _dots(semigroup, [t, s, u], [at(time) for time in (t, s, u)], ["t", "s", "u"], [(-2, -12), (0, 12), (6, -12)])
    return png(figure)


def correction(x: np.ndarray, maps: dict[str, np.ndarray], found: dict[str, tuple[float, float]]) -> bytes:
    """Learned maps beside the exact one, and the densities of their one-step samples: PNG.

    x [N]: equally likely points of the noise. maps: "exact", "sgflow" and "uncorrected" there, [N]. found: their errors
    (RMSE of the map, 1-Wasserstein distance of the samples).
    """
    styles = {"exact": (BLACK, "-", 3), "sgflow": (BLUE, "-", 1.6), "uncorrected": (ORANGE, "--", 2)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4), layout="constrained")
    bins = np.linspace(-4, 4.5, 86)
    for name, f in maps.items():
        colour, line, width = styles[name]
        rmse, distance = found.get(name, (None, None))
        shade = {"color": colour, "linestyle": line, "linewidth": width, "alpha": 0.45 if name == "exact" else 1}
        left.plot(x, f, **shade, label=name if rmse is None else f"{name}: RMSE {rmse:.3f}")
        if name == "exact":
            right.plot(bins, data.density("mixture1d")(bins[:, None]), **shade, label="data")
        else:
            height, _ = np.histogram(f, bins, density=True)
            right.stairs(height, bins, **shade, label=f"{name}: distance {distance:.3f}")
    left.set(xlim=(-3, 3), xlabel="noise x", ylabel="f(0, 1, x)", title="the map that training finds")
    right.set(xlabel="x", ylabel="density", title="one-step samples")
    right.margins(y=0.3)
    right.set_ylim(bottom=0)
    for ax in (left, right):
        ax.legend(fontsize="small", loc="upper left" if ax is left else "upper right")
    return png(figure)
