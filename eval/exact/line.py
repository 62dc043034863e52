"""Maps from noise to data on the line, f(0, 1, x), compared with the exact one of mixture1d."""

import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from sgflow_jax import data, flow_map
from sgflow_jax.interfaces import Net

POINTS = 4001  # of x ~ N(0, 1), at equal shares of its probability


def maps(nets: dict[str, Net]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(x, maps): POINTS equally likely points of N(0, 1), and f(0, 1, x) there of "exact" and of each network by its
    name, all [POINTS]."""
    x = norm.ppf((np.arange(POINTS) + 0.5) / POINTS).astype(np.float32)
    points = jnp.asarray(x)[:, None]
    found = {"exact": data.oracle("mixture1d").flow_map(jnp.zeros(POINTS), jnp.ones(POINTS), points)}
    found |= {name: flow_map.apply(net, 0.0, 1.0, points) for name, net in nets.items()}
    return x, {name: np.asarray(f)[:, 0] for name, f in found.items()}


def errors(maps: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Of each learned map: the RMSE of f(0, 1, x), and the 1-Wasserstein distance of its one-step samples to the data.

    Exact but for the grid: the points are quantiles of the noise, and on the line sorted samples are matched.
    """
    exact = maps["exact"]
    return {
        name: (float(np.sqrt(np.mean((f - exact) ** 2))), float(np.mean(np.abs(np.sort(f) - np.sort(exact)))))
        for name, f in maps.items()
        if name != "exact"
    }
