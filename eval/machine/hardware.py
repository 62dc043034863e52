"""What the device at hand can do and has used: multiplication rate, peak memory, energy."""

import ctypes
import os
import time

import jax
import jax.numpy as jnp

_REPEATS = 10


def multiply_rate(dtype: str, precision: str) -> float:
    """Floating-point operations a second of large square matrix products, two for each multiplication and addition:
    the best of a few. precision: of JAX, for float32."""
    n = 1024 if jax.default_backend() == "cpu" else 8192
    # Scaled so that products of products neither grow nor vanish: zeros would cost less power.
    a = (jax.random.normal(jax.random.key(0), (n, n)) / n**0.5).astype(dtype)
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    multiply(a, a).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began, b = time.perf_counter(), a
        for _ in range(_REPEATS):
            b = multiply(a, b)  # each waits for the one before, so that none is left out
        b.block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 * _REPEATS / best


def peak_bytes() -> int | None:
    """The most memory that this process has had on the first device; None where JAX does not tell (on CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    return stats and stats.get("peak_bytes_in_use")


def joules() -> float | None:
    """The energy the first GPU has taken since its driver started; None where no driver tells."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if (
        jax.default_backend() != "gpu" or not visible.isdigit()
    ):  # the driver counts all GPUs, JAX those that are visible
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
