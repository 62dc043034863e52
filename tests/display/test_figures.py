import io

import numpy as np
import pytest
from PIL import Image

from sgflow_jax import data
from sgflow_jax.display import figures


def test_image_grid_puts_every_image_in_its_place():
    rows = [
        np.full((2, 8, 8, 1), 10 * (i + 1), np.uint8) + np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1)
        for i in range(3)
    ]
    picture = figures.image_grid(rows, pad=2)
    tile = 48 + 2  # 8 pixels enlarged 6 times
    assert picture.shape == (3 * tile + 2, 2 * tile + 2, 3)
    for i in range(3):
        for j in range(2):
            inside = picture[2 + i * tile : 50 + i * tile, 2 + j * tile : 50 + j * tile]
            assert np.all(inside == 10 * (i + 1) + j)
    assert np.all(picture[:2] == 255)


def test_large_images_keep_their_size_and_colours():
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype(np.uint8)
    np.testing.assert_array_equal(figures.image_grid([image], pad=0), image[0])


def test_the_first_images_of_each_number_of_calls_fill_a_row():
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    for count, shown in [(40, 16), (3, 3)]:
        picture = figures.by_calls({1: images[:count], 4: images[:count] + 40})
        tiles = picture[2:, -shown * 50 :, 0].reshape(2, 50, shown, 50)[:, 20, :, 20]
        np.testing.assert_array_equal(tiles, np.arange(shown) + [[0], [40]])


def test_points_become_panels():
    rng = np.random.default_rng(0)
    for dim in (1, 2):
        picture = figures.by_calls({1: rng.standard_normal((100, dim)), 4: rng.standard_normal((100, dim))})
        assert picture.ndim == 3 and picture.dtype == np.uint8
        assert picture.shape[1] > 1.5 * picture.shape[0]
        assert len(np.unique(picture)) > 10


@pytest.mark.parametrize("name, dim", [("mixture1d", 1), ("eight_gaussians", 2)])
def test_the_exact_density_is_drawn_over_points(name, dim):
    density, points = data.density(name), data.make(name).read(np.arange(500))
    axis = np.linspace(-6, 6, 601)
    grid = np.stack(np.meshgrid(*[axis] * dim), axis=-1).reshape(-1, dim)
    assert density(grid).sum() * (axis[1] - axis[0]) ** dim == pytest.approx(1, abs=1e-3)
    assert np.log(density(points)).mean() > np.log(density(points + 0.5)).mean()
    with_it, without = figures.by_calls({1: points}, density), figures.by_calls({1: points})
    assert np.mean(with_it.astype(int) < without.astype(int) - 40) > 1e-3
    assert data.density("checkerboard") is None and data.density("digits") is None


def test_png_holds_the_picture():
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(figures.png(picture)))), picture)
