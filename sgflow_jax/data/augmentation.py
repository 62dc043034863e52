"""Augmentation that does not leak into samples: the network is told what was done to each training image by a label,
and samples are made with the label of an untouched image, 0.

Transformations, probabilities and labels are those of the code of Karras et al. 2022 (arXiv 2206.00364, appendix F.2),
after Karras et al. 2020 (arXiv 2006.06676, appendix B). Positions (x, y) are in pixels from the centre of the image, x
to the right, y down.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

SCALE_STD = 0.2  # of the logarithm to base 2 of a scale, or of a stretch
SHIFT_STD = 0.125  # of a shift, as a share of the image's width or height
OBLIQUE = 0.5  # share of the stretches that are along any direction, not along x
FINE = 2  # images are resampled at this multiple of their resolution

# The numbers of a whole label: mirrored in x and in y; scale; rotation (2); stretch (2); shift (2).
_GEOMETRY = slice(2, 9)
# By the length of a label, which of them it has. 9: EDM. 6: MeanFlow, without the mirror in y and the rotation.
LABELS = {6: (0, 2, 5, 6, 7, 8), 9: tuple(range(9))}


class Drawn(NamedTuple):
    """What is done to one image, in this order; 0 is nothing.

    mirror_x, mirror_y: 0 or 1. scale: it becomes larger by 2^(SCALE_STD scale). angle: by which it is turned
    counter-clockwise, radians. stretch: by 2^(SCALE_STD stretch) along `direction`, an angle from x, counter-clockwise
    too, and by the inverse across. shift: [2], in units of SHIFT_STD times width and height.
    """

    mirror_x: jax.Array
    mirror_y: jax.Array
    scale: jax.Array
    angle: jax.Array
    stretch: jax.Array
    direction: jax.Array
    shift: jax.Array

    def label(self) -> jax.Array:
        """[9]. As published, a stretch at an angle and the inverse stretch at the opposite angle have one label."""
        return jnp.stack(
            [
                self.mirror_x,
                self.mirror_y,
                self.scale,
                jnp.cos(self.angle) - 1,
                jnp.sin(self.angle),
                self.stretch * jnp.cos(self.direction),
                self.stretch * jnp.sin(self.direction),
                *self.shift,
            ]
        )

    def source(self, position: jax.Array, size: jax.Array) -> jax.Array:
        """The position [2] in the image from which the one at `position` [2] is taken, but for the mirrors. size: width
        and height, [2]."""
        s, a = (jnp.exp2(SCALE_STD * w) for w in (self.scale, self.stretch))
        with jax.default_matmul_precision("highest"):
            stretch = _rotation(-self.direction) @ jnp.diag(jnp.stack([1 / a, a])) @ _rotation(self.direction)

            back = _rotation(self.angle) @ stretch / s

            return back @ (position - SHIFT_STD * size * self.shift)


def draw(key: jax.Array, probability: float, dimension: int) -> Drawn:
    """Draws what is done to one image. Half of the images are mirrored in x; everything else, as far as a label of this
    `dimension` has it, happens with the given probability, each by itself."""
    chosen, mirrors, normal, angles, oblique = jax.random.split(key, 5)
    mirror_y, scale, angle, stretch, shift = jax.random.bernoulli(chosen, probability, (5,)).astype(jnp.float32)
    mirrors = jax.random.bernoulli(mirrors, 0.5, (2,)).astype(jnp.float32)
    normal = jax.random.normal(normal, (4,))
    turn, direction = jax.random.uniform(angles, (2,), minval=-jnp.pi, maxval=jnp.pi)
    whole = float(dimension == 9)
    return Drawn(
        mirror_x=mirrors[0],
        mirror_y=mirrors[1] * mirror_y * whole,
        scale=normal[0] * scale,
        angle=turn * angle * whole,
        stretch=normal[1] * stretch,
        direction=direction * jax.random.bernoulli(oblique, OBLIQUE),
        shift=normal[2:] * shift,
    )


def augmented(key: jax.Array, x: jax.Array, probability: float, dimension: int) -> tuple[jax.Array, jax.Array]:
    """Augments images x [B, H, W, C], float32; returns them with their labels [B, dimension], see LABELS.

    Image i depends on (key, i, x[i]) alone. Where only the mirrors act, and where nothing does, pixels keep their bits.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(x)))
    drawn = jax.vmap(lambda key: draw(key, probability, dimension))(keys)
    return apply(drawn, x), jax.vmap(Drawn.label)(drawn)[:, LABELS[dimension]]


def apply(drawn: Drawn, x: jax.Array) -> jax.Array:
    """Does to images x [B, H, W, C] what was drawn for each, fields [B, ...].

    Outside an image is its mirror image. The published code resamples at twice the resolution, between which and the
    image's it converts by the filter of a wavelet (sym6); here it is a Lanczos filter, so images differ a little.
    """
    x = jnp.where(_each(drawn.mirror_x), x[:, :, ::-1], x)
    x = jnp.where(_each(drawn.mirror_y), x[:, ::-1], x)
    touched = jnp.any(jax.vmap(Drawn.label)(drawn)[:, _GEOMETRY] != 0, axis=1)
    return jnp.where(_each(touched), _resampled(drawn, x), x)


def _resampled(drawn, x):
    batch, height, width, channels = x.shape
    size = jnp.array([width, height], jnp.float32)
    fine_shape = batch, FINE * height, FINE * width, channels
    fine = jax.image.resize(x, fine_shape, "lanczos3")

    across, down = ((jnp.arange(FINE * n) + 0.5) / FINE - n / 2 for n in (width, height))
    positions = jnp.stack(jnp.meshgrid(across, down), axis=-1).reshape(-1, 2)

    def warp(drawn, image):
        x, y = jax.vmap(lambda position: FINE * (drawn.source(position, size) + size / 2) - 0.5)(positions).T
        sample = lambda channel: map_coordinates(channel, (y, x), order=1, mode="reflect")  # noqa: E731
        return jax.vmap(sample, in_axes=-1, out_axes=-1)(image).reshape(image.shape)

    return jax.image.resize(jax.vmap(warp)(drawn, fine), x.shape, "lanczos3")


def _rotation(angle):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def _each(flag):
    return (flag > 0)[:, None, None, None]
