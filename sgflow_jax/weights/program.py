"""A whole sampler as one program in StableHLO, which runs without this code (`jax.export`)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from sgflow_jax import generate
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.sampling import Sampler

PLATFORMS = ("cpu", "cuda", "tpu")
MAX_BYTES = 2**31 - 2**24  # of all parameters: they are constants of the program, and its format addresses 2^31 bytes


def make(
    net: BoundNet, sampler: Sampler, calls: int, shape: tuple[int, ...], labels: Sequence[int] = ()
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """program(seed, indices [n] int32) -> the examples of `generate.batches` with these indices, uint8 [n, H, W, C] or
    float32 [n, D]. net: with parameters on the host. labels: they take turns, as in `labels.in_turn`; () for a network
    without labels.

    Its parts are compiled as they are when a run is sampled, so that numbers are the same: barriers keep the compiler
    from computing with the parameters beforehand, from fusing noise and steps, and from unrolling the loop over steps.
    """
    times = np.asarray(sampler.times(calls), np.float32)

    def program(seed, indices):
        params = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, net.params))
        x0, keys = jax.lax.optimization_barrier(generate.draw_noise(seed, indices, None, shape))
        label = jnp.asarray(labels, jnp.int32)[indices % len(labels)] if labels else None
        guided = sampler.guided(net.replace(params=params, label=label))

        def body(index, x):
            t, u = jnp.asarray(times)[index], jnp.asarray(times)[index + 1]
            x, index, t, u = jax.lax.optimization_barrier((x, index, t, u))
            name = sampler.objective.interpolant
            return jax.lax.optimization_barrier(generate.step(guided, x, index, t, u, keys, sampler.method, name))

        steps = jax.lax.optimization_barrier(jnp.int32(len(times) - 1))
        return generate.to_examples(jax.lax.fori_loop(0, steps, body, x0))[0]

    return program


def serialized(program: Callable, params, name: str) -> bytes:
    """A program of `make` for any number of examples and for PLATFORMS, in the format of `jax.export`. params: its own.
    name: of its function. InputError for parameters of more than MAX_BYTES."""
    if (size := sum(a.nbytes for a in jax.tree.leaves(params))) > MAX_BYTES:
        raise InputError(
            f"the network has {size:,} bytes of parameters, and a program can have {MAX_BYTES:,}: export .safetensors"
        )
    program.__name__ = program.__qualname__ = name
    (n,) = export.symbolic_shape("n")
    seed, indices = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((n,), jnp.int32)
    return bytes(export.export(jax.jit(program), platforms=PLATFORMS)(seed, indices).serialize())
