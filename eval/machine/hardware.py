"""Measurements of the first device: matrix multiplication rate, peak memory, energy."""

import ctypes
import os
import time

import jax
import jax.numpy as jnp

_REPEATS = 10


def multiply_rate(dtype: str, precision: str) -> float:
    """FLOP/s of large square matrix products: the best of five. A multiplication and an addition count as two.

    precision: JAX's, for float32.
    """
    n = 1024 if jax.default_backend() == "cpu" else 8192
    # Scaled so that repeated products neither grow nor vanish: zeros would use less power.
    a = (jax.random.normal(jax.random.key(0), (n, n)) / n**0.5).astype(dtype)
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    multiply(a, a).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began, b = time.perf_counter(), a
        for _ in range(_REPEATS):
            b = multiply(a, b)  # depends on the last, so XLA drops none
        b.block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 * _REPEATS / best


def peak_bytes() -> int | None:
    """Peak memory of this process on the first device; None if JAX does not report it (on a CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    return stats and stats.get("peak_bytes_in_use")


def joules() -> float | None:
    """Energy the first GPU has used since its driver started; None if the driver does not report it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    # The driver numbers all GPUs, JAX only the visible ones.
    if jax.default_backend() != "gpu" or not visible.isdigit():
        return None
    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")
        device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        failed = (
            driver.nvmlInit_v2()
            or driver.nvmlDeviceGetHandleByIndex_v2(int(visible), ctypes.byref(device))
            or driver.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))
        )
    except (OSError, AttributeError):
        return None
    return None if failed else millijoules.value / 1000
