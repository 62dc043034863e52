"""--mode=sample on tiny runs: the arrays, their pictures, and what is rejected before anything is written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgflow_jax import generate, sample_run
from sgflow_jax.display import figures
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.sampled import REQUEST

TILE = 48 + 2  # 8 pixels enlarged 6 times, and the line between tiles


def _sample(workdir, config, folder: Path, **changes) -> dict[str, np.ndarray]:
    sample_run.sample(workdir, config, str(folder / "made.npz"), REQUEST._replace(**changes))
    with np.load(folder / "made.npz") as arrays:
        return dict(arrays)


def _tiles(file: Path, rows: int, columns: int) -> np.ndarray:
    """The grey images [rows, columns, 8, 8] of a picture, whose size is checked; titles may be to their left."""
    with Image.open(file) as picture:
        assert picture.size[1] == rows * TILE + 2 and 0 <= picture.size[0] - (columns * TILE + 2) < 100
        grey = np.asarray(picture)[2:, -columns * TILE :, 0].astype(int)
    return grey.reshape(rows, TILE, columns, TILE)[:, 3:48:6, :, 3:48:6].transpose(0, 2, 1, 3)


@pytest.fixture
def undrawn(monkeypatch):
    """Blank pictures of points, which take longer than sampling them."""
    monkeypatch.setattr(figures, "point_panels", lambda *_: np.zeros((1, 1, 3), np.uint8))


def test_images_and_their_pictures(digits_run, tmp_path, monkeypatch):
    plans = []
    between = generate.interpolate
    monkeypatch.setattr(generate, "interpolate", lambda net, plan, *n: plans.append(plan) or between(net, plan, *n))
    config = tiny.digits("flow_matching")
    config.eval.batch_size = 24
    made = _sample(digits_run, config, tmp_path, interpolate=True, grid="quadratic")
    assert {name: a.shape for name, a in made.items()} == dict.fromkeys(["steps_2", "steps_1"], (20, 8, 8, 1))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["made.npz", "made.png", "made_interpolation.png"]

    shown = _tiles(tmp_path / "made.png", 2, 16)
    np.testing.assert_array_equal(shown[0], made["steps_2"][:16, ..., 0])
    np.testing.assert_array_equal(shown[1], made["steps_1"][:16, ..., 0])

    with Image.open(tmp_path / "made.png") as picture:
        margin = np.asarray(picture)[:, : -16 * TILE - 2, 0]
    ink = [np.argwhere(margin[2 + i * TILE : 2 + (i + 1) * TILE] < 128) for i in range(2)]
    assert all(len(each) > 20 and 15 < each[:, 0].mean() < 35 for each in ink), "a title in the middle of each row"
    assert np.all(margin[:, -4:] == 255)

    (plan,) = plans
    assert (plan.calls, plan.sampler.grid, plan.seed, plan.batch_size) == (2, "quadratic", 3, 24)
    strip = _tiles(tmp_path / "made_interpolation.png", 4, 9)
    ends = made["steps_2"][:8, ..., 0].reshape(4, 2, 8, 8)
    assert np.max(np.abs(strip[:, [0, -1]] - ends)) <= 1
    assert np.all(np.ptp(strip, axis=(1, 2, 3)) > 0)


def test_lines_say_what_was_written(line_run, tmp_path, undrawn):
    out = str(tmp_path / "made.npz")
    first, second = sample_run.sample(line_run, tiny.mixture(), out, REQUEST._replace(checkpoint=4, parameters="raw"))
    assert "sgflow, step 4, last parameters" in first and "20 examples in each of 2, 1 steps" in first
    assert out in second and str(tmp_path / "made.png") in second


def test_the_checkpoint_and_parameters_asked_for_are_used(line_run, tmp_path, undrawn):
    how = [{"checkpoint": 2}, {"checkpoint": 6}, {"parameters": "raw"}, {}]
    found = [_sample(line_run, tiny.mixture(), tmp_path, **changes)["steps_1"] for changes in how]
    np.testing.assert_array_equal(found[1], found[3])
    assert np.any(found[0] != found[1]) and np.any(found[2] != found[3])


def test_points_and_their_panels(line_run, tmp_path):
    made = _sample(line_run, tiny.mixture(), tmp_path, calls=None)
    assert {name: a.shape for name, a in made.items()} == {f"steps_{n}": (20, 1) for n in (1, 2, 4, 10)}
    with Image.open(tmp_path / "made.png") as picture:
        width, height = picture.size
        assert width > 3 * height and len(np.unique(np.asarray(picture))) > 10


def test_the_grid_asked_for_is_used(line_run, tmp_path, undrawn):
    uniform, quadratic = (_sample(line_run, tiny.mixture(), tmp_path, grid=grid) for grid in ("uniform", "quadratic"))
    np.testing.assert_array_equal(quadratic["steps_1"], uniform["steps_1"])
    assert np.all(quadratic["steps_2"] != uniform["steps_2"])
    assert sorted(f.name for f in tmp_path.iterdir()) == ["made.npz", "made.png"]


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"grid": "linear"}, "'linear'.*quadratic"),
        ({"grid": "linear", "calls": None}, "'linear'.*quadratic"),
        ({"method": "rk4"}, "'rk4'"),
        ({"method": "heun"}, "heun cannot spend 1"),
        ({"interpolate": True}, "mixture1d is points: leave it out"),
    ],
)
def test_impossible_requests_are_rejected_before_anything_is_written(changes, match, line_run, tmp_path):
    with pytest.raises(InputError, match=match) as error:
        _sample(line_run, tiny.mixture(), tmp_path, **changes)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_an_empty_batch_is_rejected(line_run, tmp_path):
    config = tiny.mixture()
    config.eval.batch_size = 0
    with pytest.raises(InputError, match="config.eval.batch_size is 0: use"):
        _sample(line_run, config, tmp_path)


@pytest.mark.parametrize("taken", ["made.npz", "made.png", "made_interpolation.png"])
def test_a_directory_in_place_of_a_file_is_rejected(taken, line_run, tmp_path):
    (tmp_path / taken).mkdir()
    with pytest.raises(InputError, match=f"{taken} is a directory: use another name"):
        _sample(line_run, tiny.mixture(), tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == [taken]


@pytest.mark.parametrize("out", ["samples.txt", "nowhere/samples.npz"])
def test_a_bad_out_is_rejected(out, line_run, tmp_path):
    with pytest.raises(InputError, match="ends in .npz"):
        sample_run.sample(line_run, tiny.mixture(), str(tmp_path / out), REQUEST)
