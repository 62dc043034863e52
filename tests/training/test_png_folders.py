"""Directories of PNG files written by --mode=sample."""

import numpy as np
import pytest
from PIL import Image

from sgflow_jax import sample_files, sample_run
from sgflow_jax.interfaces import InputError
from tests import sampled, tiny


def _folder(workdir, folder, config=None, **changes):
    return sample_run.sample(workdir, config or tiny.labelled(), f"{folder}/", sampled.REQUEST._replace(**changes))


def _images(folder):
    files = sorted(folder.glob("*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files])[..., None], [file.name for file in files]


def test_a_directory_of_png_files(labelled_run, tmp_path):
    _, made = sampled.labelled(labelled_run, tmp_path / "made.npz", label="7,2")
    folder = tmp_path / "png"
    lines = _folder(labelled_run, folder, label="7,2", interpolate=True, calls=(2,))
    with Image.open(folder / "interpolation.png") as picture:
        assert picture.size == (9 * 50 + 2, 4 * 50 + 2)
    (folder / "interpolation.png").unlink()
    images, names = _images(folder)
    assert names == [f"{n:06d}_{'72'[n % 2]}.png" for n in range(20)]
    np.testing.assert_array_equal(images, made["steps_2"])
    assert lines[1:] == [
        f"wrote 20 files to {folder}: 000000_7.png to 000019_2.png",
        f"wrote {folder / 'interpolation.png'}",
    ]


def test_several_numbers_of_steps_have_directories_of_their_own(labelled_run, digits_run, tmp_path):
    _, made = sampled.labelled(labelled_run, tmp_path / "made.npz")
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "notes.txt").write_text("mine")
    sample_run.sample(
        labelled_run, tiny.labelled(), str(tmp_path / "png"), sampled.REQUEST
    )  # it exists: no slash needed
    for steps in ("steps_1", "steps_2"):
        images, names = _images(tmp_path / "png" / steps)
        np.testing.assert_array_equal(images, made[steps])
        assert names == [f"{n:06d}_{n % 10}.png" for n in range(20)]
    assert sorted(f.name for f in (tmp_path / "png").iterdir()) == ["notes.txt", "steps_1", "steps_2"]

    _folder(digits_run, tmp_path / "plain", tiny.digits("flow_matching"), calls=(1,), num_samples=3)
    assert _images(tmp_path / "plain")[1] == ["000000.png", "000001.png", "000002.png"]


@pytest.mark.parametrize("taken", ["000003.png", "1234567_a cat.png", "steps_2/000000.png", "interpolation.png"])
def test_nothing_is_overwritten(taken, labelled_run, tmp_path):
    folder = tmp_path / "png"
    (folder / taken).parent.mkdir(parents=True)
    (folder / taken).write_text("mine")
    with pytest.raises(InputError, match="has samples already .*: use another --out, nothing is overwritten"):
        _folder(labelled_run, folder)
    assert [file.name for file in folder.rglob("*.png")] == [(folder / taken).name]


def test_bad_directories_are_rejected(labelled_run, line_run, tmp_path):
    with pytest.raises(InputError, match="is a directory, for images, and these are points: use a name that ends in"):
        _folder(line_run, tmp_path / "png", tiny.mixture())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: give a directory"):
        _folder(labelled_run, tmp_path / "file")
    with pytest.raises(
        InputError, match="ends in .npz, in a directory that exists, or for PNG files a directory, DIR/"
    ):
        sample_run.sample(labelled_run, tiny.labelled(), str(tmp_path / "png"), sampled.REQUEST)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_no_half_a_file(labelled_run, tmp_path):
    with tiny.files_of_at_most(60), pytest.raises(InputError, match="000000_0.png cannot be written .File too large"):
        _folder(labelled_run, tmp_path / "png")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_names_of_classes_are_safe_in_file_names():
    names = ("a/b", "cow, brown", "tab\tand\0zero\n", "猫" * 100, "..", "\udcff")
    found = list(sample_files.file_names(6, np.arange(6), names))
    assert found[:3] == ["000000_a_b.png", "000001_cow, brown.png", "000002_tab_and_zero_.png"]
    assert found[3] == f"000003_{'猫' * 50}.png" and found[4] == "000004_...png" and found[5] == "000005__.png"
    assert list(sample_files.file_names(2, None, ())) == ["000000.png", "000001.png"]
