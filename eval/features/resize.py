"""Bilinear resize of images without antialiasing, by the two rules used for published features."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# Source coordinate of output pixel i; scale = input size / output size.
_COORDINATES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "tf1": lambda i, scale: i * scale,  # the default of TensorFlow 1
    "half_pixel": lambda i, scale: (i + 0.5) * scale - 0.5,  # PyTorch, align_corners=False
}
RULES = tuple(_COORDINATES)


def matrix(in_size: int, out_size: int, rule: str) -> np.ndarray:
    """Weights of the input pixels in each output pixel, float64 [out_size, in_size]. rule: one of RULES."""
    source = np.clip(_COORDINATES[rule](np.arange(out_size), in_size / out_size), 0, in_size - 1)
    # A hat function of half-width 1 around each source coordinate interpolates its two neighbours linearly.
    return np.maximum(0, 1 - np.abs(source[:, None] - np.arange(in_size)))


def resize(images: jax.Array, size: int, rule: str) -> jax.Array:
    """float32 [N, H, W, C] -> [N, size, size, C], edges clamped. rule: one of RULES."""
    rows, columns = (jnp.asarray(matrix(n, size, rule), jnp.float32) for n in images.shape[1:3])
    images = jnp.einsum("ih,nhwc->niwc", rows, images, precision="highest")
    return jnp.einsum("jw,niwc->nijc", columns, images, precision="highest")
