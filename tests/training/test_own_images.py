"""A run on a folder of images: the same command continues it, and other images are noticed."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import images
from eval import fid_sweep
from sgflow_jax import trainer
from sgflow_jax.config import automatic
from sgflow_jax.data import own
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        place = folder / ("cats", "dogs", "a, b")[number % 3]
        place.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(256, size=(8, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def _config(folder, num_steps=2):
    config = images.get_config("flow_matching")
    config.data.dir, config.data.size, config.data.batch_size = str(folder), 8, 8
    config.model.channels, config.model.num_blocks, config.model.remat = 4, 1, "none"
    config.model.channel_mult = (1,)  # quick to compile
    config.train.num_steps, config.train.log_every, config.train.preview_every = num_steps, 2, 0
    config.eval.batch_size = 8
    return config


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("run"))
    trainer.train(_config(folder), workdir)
    return workdir


def test_the_recorded_configuration_has_real_values(run):
    with open(f"{run}/config.json") as file:
        model = json.load(file)["model"]
    assert (model["num_classes"], model["channel_mult"], model["attention_sizes"]) == (3, [1], [])


def test_the_same_command_continues(run, folder, capsys):
    own._opened.cache_clear()
    trainer.train(_config(folder, num_steps=4), run)
    said = capsys.readouterr().out
    assert "from step 2 to 4" in said and "data        12 images of 8 x 8 x 3, split train, 3 classes" in said
    assert "automatic   model.attention_sizes (), model.num_classes 3" in said
    assert "preparing" not in said


def test_to_sample_the_same_configuration_needs_no_images(run, tmp_path):
    config, saved = _config(tmp_path / "gone"), record.recorded(run)
    record.check_same(run, saved, automatic.as_saved(config, saved))
    config.model.num_classes = 4
    with pytest.raises(InputError, match="model.num_classes .there 3, here 4"):
        record.check_same(run, saved, automatic.as_saved(config, saved))


def test_a_sweep_finds_images_that_have_moved(run, folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    copy = shutil.copytree(run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    request = fid_sweep.Request(calls=(1,), num_samples=8, features="pixels", data_dir=str(moved))
    (row,) = fid_sweep.sweep([str(copy)], request)[str(copy)]
    assert row.identity.reference.data == "images-8" and row.identity.reference.fingerprint
    assert config["data"]["dir"] == str(folder) and own._opened.cache_info().currsize
    with pytest.raises(InputError, match="nowhere', which does not exist"):
        fid_sweep.sweep([str(copy)], request._replace(data_dir=str(tmp_path / "nowhere")))


def test_other_images_and_other_classes_are_noticed(run, folder, tmp_path):
    image = folder / "cats" / "0.png"
    before = image.read_bytes()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    own._opened.cache_clear()
    with pytest.raises(InputError, match="was trained on {'fingerprint': '.*'}, but config.data points to .*data.dir"):
        trainer.train(_config(folder, num_steps=6), run)
    image.write_bytes(before)
    (folder / "new").mkdir()
    (folder / "new" / "x.png").write_bytes(before)
    own._opened.cache_clear()
    with pytest.raises(InputError, match="model.num_classes .there 3, here 4"):
        trainer.train(_config(folder, num_steps=6), run)
