"""Augmentation: the laws of its parts, their labels, and images against the exact map of a Gaussian blob."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax.data import augmentation
from sgflow_jax.data.augmentation import Drawn, draw

NOTHING = dict.fromkeys(Drawn._fields, 0.0) | {"shift": (0.0, 0.0)}
PARTS = [
    {},
    {"mirror_x": 1.0},
    {"mirror_y": 1.0},
    {"scale": 2.0},
    {"angle": 0.7},
    {"stretch": 2.0},
    {"stretch": 2.0, "direction": 1.0},
    {"shift": (1.0, -0.5)},
    {"mirror_x": 1.0, "scale": 1.0, "angle": -2.0, "stretch": 1.5, "direction": 0.4, "shift": (-0.3, 0.6)},
]
KEY = jax.random.key(0)
apply = jax.jit(augmentation.apply)
augmented = jax.jit(augmentation.augmented, static_argnums=(2, 3))


def _drawn(parts) -> Drawn:
    rows = [NOTHING | part for part in parts]
    return Drawn(**{name: jnp.array([row[name] for row in rows], jnp.float32) for name in Drawn._fields})


def _moved(z, width, height, mirror_x, mirror_y, scale, angle, stretch, direction, shift):
    """Where a point goes, as complex numbers with y up: the published transformations in their order."""
    z = -z.conj() if mirror_x else z
    z = z.conj() if mirror_y else z
    z = z * 2 ** (0.2 * scale)
    z = z * np.exp(1j * angle)
    z = z * np.exp(-1j * direction)
    z = z.real * 2 ** (0.2 * stretch) + 1j * z.imag * 2 ** (-0.2 * stretch)
    z = z * np.exp(1j * direction)
    return z + 0.125 * (width * shift[0] - 1j * height * shift[1])


def test_images_are_moved_as_their_label_says():
    """A Gaussian blob becomes a Gaussian blob, whose covariance follows from the images of two more points."""
    height, width, at, spread = 24, 32, 4 + 2j, 2.0
    y, x = np.mgrid[:height, :width]
    z = (x - (width - 1) / 2) - 1j * (y - (height - 1) / 2)
    blob = np.exp(-(np.abs(z - at) ** 2) / (2 * spread**2))
    images = jnp.array(np.stack([blob] * len(PARTS)), jnp.float32)[..., None]
    found = apply(_drawn(PARTS), images)[..., 0]
    for part, image in zip(PARTS, found, strict=True):
        go = lambda z, row=NOTHING | part: _moved(np.complex128(z), width, height, **row)  # noqa: E731
        centre = go(at)
        sides = [go(at + spread) - centre, go(at + 1j * spread) - centre]
        back = np.linalg.inv([[side.real for side in sides], [side.imag for side in sides]])
        away = back @ np.stack([(z - centre).real.ravel(), (z - centre).imag.ravel()])
        exact = np.exp(-np.sum(away**2, axis=0) / 2).reshape(height, width)
        # Interpolated at half a pixel's distance, with a second derivative of at most 1 / spread^2.
        np.testing.assert_allclose(image, exact, atol=0.02, err_msg=str(part))


def test_outside_an_image_is_its_mirror_image():
    flat = jnp.full((len(PARTS), 8, 8, 2), 0.5)
    np.testing.assert_allclose(apply(_drawn(PARTS), flat), 0.5, atol=1e-5)
    # Half a width to the right: what comes in at the left is the left half, reversed.
    ramp = jnp.broadcast_to(jnp.arange(16.0)[None, None, :, None], (1, 16, 16, 1))
    moved = apply(_drawn([{"shift": (4.0, 0.0)}]), ramp)[0, 8, :, 0]
    np.testing.assert_allclose(moved[1:7], 7.0 - np.arange(1, 7), atol=0.1)
    np.testing.assert_allclose(moved[9:15], np.arange(1, 7), atol=0.1)


def test_untouched_pixels_keep_their_bits_in_any_batch():
    x = jax.random.normal(jax.random.key(1), (64, 8, 8, 1))
    made = {dimension: augmented(KEY, x[:n], 0.12, dimension) for dimension, n in ((6, 16), (9, 64))}
    for dimension, geometry in ((6, slice(1, 6)), (9, slice(2, 9))):
        y, label = made[dimension]
        assert label.shape == (len(y), dimension)
        for image, found, row in zip(x, y, label, strict=False):
            expected = image[:, ::-1] if row[0] else image
            expected = expected[::-1] if dimension == 9 and row[1] else expected
            assert np.array_equal(found, expected) == np.all(row[geometry] == 0)
    assert 20 < np.sum(np.all(label[:, 2:] == 0, axis=1)) < 55 and 20 < np.sum(label[:, 0]) < 44
    np.testing.assert_array_equal(made[6][1], label[:16, jnp.array(augmentation.LABELS[6])])
    assert np.any(augmented(jax.random.key(2), x, 0.12, 9)[1] != label)


def test_labels_are_those_of_the_published_code():
    """In order: mirrors, scale, cos - 1 and sin of the angle, stretch times cos and sin of its direction, shift."""
    part = dict(mirror_x=1.0, scale=0.3, angle=0.7, stretch=-2.0, direction=0.5, shift=(0.1, -0.2))
    label = jax.vmap(Drawn.label)(_drawn([part]))[0]
    angles = [np.cos(0.7) - 1, np.sin(0.7), -2 * np.cos(0.5), -2 * np.sin(0.5)]
    np.testing.assert_allclose(label, [1, 0, 0.3, *angles, 0.1, -0.2], rtol=1e-6)
    np.testing.assert_array_equal(label[jnp.array(augmentation.LABELS[6])], label[jnp.array([0, 2, 5, 6, 7, 8])])


@pytest.mark.parametrize("dimension", [6, 9])
def test_laws_of_the_parts(dimension):
    n, p = 20_000, 0.3
    drawn = jax.jit(jax.vmap(lambda key: draw(key, p, dimension)))(jax.random.split(KEY, n))
    near = lambda share, expected: abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)  # noqa: E731
    whole = dimension == 9
    used = [drawn.scale != 0, drawn.stretch != 0, drawn.shift[:, 0] != 0]
    assert near(np.mean(drawn.mirror_x), 0.5) and all(near(np.mean(each), p) for each in used)
    assert near(np.mean(drawn.mirror_y), p / 2) if whole else not np.any(drawn.mirror_y)
    assert near(np.mean(drawn.angle != 0), p) if whole else not np.any(drawn.angle)
    assert near(np.mean(used[0] & used[1] & used[2]), p**3)
    assert near(np.mean(drawn.direction[used[1]] != 0), 0.5)
    for values in (drawn.scale[used[0]], drawn.stretch[used[1]], *drawn.shift[used[2]].T):
        assert abs(np.mean(values)) < 0.06 and abs(np.std(values) - 1) < 0.05
    for values in [drawn.direction] + [drawn.angle] * whole:
        values = values[values != 0]
        assert abs(np.std(values) - np.pi / 3**0.5) < 0.05 and np.abs(values).max() <= np.pi
