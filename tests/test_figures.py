import io

import numpy as np
import pytest
from PIL import Image

from eval import plots, results
from sgflow_jax import figures
from sgflow_jax.interfaces import InputError


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


def test_points_become_panels():
    rng = np.random.default_rng(0)
    for dim in (1, 2):
        picture = figures.by_steps({1: rng.standard_normal((100, dim)), 4: rng.standard_normal((100, dim))})
        assert picture.ndim == 3 and picture.dtype == np.uint8
        assert picture.shape[1] > 1.5 * picture.shape[0]
        assert len(np.unique(picture)) > 10


def test_png_holds_the_picture():
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(figures.png(picture)))), picture)


def _row(steps, value, seed=0):
    identity = results.Identity("sgflow", 100, "ema", steps, "flow_map", "pixels", "digits", 2000, seed)
    return results.Row(identity, 1797, value)


def test_rows_survive_their_file(tmp_path):
    rows = [_row(1, 0.123456789), _row(10, 2.0, seed=3)]
    results.write(str(tmp_path), rows)
    assert results.read(str(tmp_path)) == rows
    assert results.read(str(tmp_path / "none")) == []
    (tmp_path / "eval" / "fid.jsonl").open("a").write('{"steps": 1}\n')
    with pytest.raises(InputError, match="line 3.*remove it"):
        results.read(str(tmp_path))


def test_table_orders_steps_as_numbers_within_a_series():
    text = results.table([_row(10, 1.0), _row(2, 2.0), _row(1, 3.0, seed=1), _row(100, 0.5)])
    column = text.splitlines()[0].split(" | ").index("steps")
    assert [line.split(" | ")[column] for line in text.splitlines()[2:]] == ["2", "10", "100", "1"]


def test_curve_is_a_picture():
    for values in ([3.0, 2.0, 1.0], [300.0, 20.0, 1.0]):
        rows = [_row(steps, value) for steps, value in zip((1, 4, 100), values, strict=True)]
        with Image.open(io.BytesIO(plots.distance_curve(rows))) as picture:
            assert picture.size == (960, 600)
