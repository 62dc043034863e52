"""Flow matching: the velocity alone, on the diagonal t = u."""

import dataclasses

import jax.numpy as jnp

from sgflow_jax.interfaces import LossOut
from sgflow_jax.objectives.base import Objective, diagonal_loss
from sgflow_jax.times import Domain


@dataclasses.dataclass(frozen=True)
class FlowMatching(Objective):
    """Flow matching (Lipman et al. 2023; Albergo & Vanden-Eijnden 2023; Liu et al. 2023).

        |F(t, t, x_t) - dx_t|^2

    Stationary at F(t, t, x) = v(t, x). It does not train t < u: samples are drawn by integrating F(t, t, .).
    """

    domain = Domain.DIAGONAL
    regression = True

    def unguided_loss(self, net, drawn, teacher):
        loss = diagonal_loss(net, drawn)

        return LossOut(loss, {"diagonal_loss": jnp.mean(loss)})
