"""Labelled data whose guided velocity is known in closed form."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax.interfaces import expand_time
from sgflow_jax.oracles.mixture import GaussianMixture


@dataclasses.dataclass(frozen=True)
class LabelledMixture:
    """A mixture whose components belong to classes: class c is the mixture of its own, the null class of all.

        g_c = v_null + W (v_c - v_null),   g_null = v_null

    is the guided velocity, and f_c(t, u, x) carries x along dx/ds = g_c(s, x), both for every point x, also where x_t
    of the class c is rare. label: [B], 0 to `num_classes` - 1, or `num_classes`, the null class. The flow map is solved
    numerically, to about 1e-8 in float64 for W up to 4.

    union: the law of all data. owners: the class of each component. guidance: W.
    """

    union: GaussianMixture
    owners: tuple[int, ...]
    guidance: float

    @property
    def num_classes(self) -> int:
        return max(self.owners) + 1

    def velocity(self, t: jax.Array, x: jax.Array, label: jax.Array) -> jax.Array:
        """g_label(t, x), like x [B, D]."""
        own = (np.array(self.owners)[None] == label[:, None]) | (label[:, None] == self.num_classes)
        v_null, v_c = self.union.velocity(t, x), self.union.velocity(t, x, own)

        return v_null + self.guidance * (v_c - v_null)

    @functools.partial(jax.jit, static_argnums=0)
    def average_velocity(self, t: jax.Array, u: jax.Array, x: jax.Array, label: jax.Array) -> jax.Array:
        """F_label(t, u, x), like x [B, D]."""
        return self.union._solve(t, u, x, self.union.steps, functools.partial(self.velocity, label=label))

    def flow_map(self, t: jax.Array, u: jax.Array, x: jax.Array, label: jax.Array) -> jax.Array:
        """f_label(t, u, x), like x [B, D]."""
        return x + expand_time(u - t, x) * self.average_velocity(t, u, x, label)

    def sample(self, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        """n data points [n, D] and their classes [n]."""
        x, component = self.union.sample_with_component(key, n)
        return x, jnp.asarray(self.owners)[component]
