"""Preparation that is interrupted, and processes that need the same images at once."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sgflow_jax import data
from sgflow_jax.data import decoding, own
from tests.commands import ROOT

COUNT = 3000
READ = """
import sys, time
from sgflow_jax import data
from sgflow_jax.data import decoding
if sys.argv[2] == "slow":
    decode = decoding._decode
    decoding._decode = lambda *given: (time.sleep(0.01), decode(*given))[1]
source = data.make("images", dir=sys.argv[1], size=8)
print(source.size, source.fingerprint)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own._opened.cache_clear()
    images = np.random.default_rng(0).integers(256, size=(COUNT, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    return tmp_path / "x.npz"


def _start(file, speed="fast"):
    command = [sys.executable, "-c", READ, str(file), speed]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def _kept(file):
    """What the cache holds, besides locks."""
    return sorted(place.name for place in (file.parent / "cache" / "sgflow_jax" / "images").glob("*") if place.is_dir())


def _until_it_writes(file):
    end = time.monotonic() + 60
    while not list((file.parent / "cache").rglob("*.part/train-*")):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_preparation_leaves_nothing_half_made(file, number):
    with _start(file, "slow") as process:
        _until_it_writes(file)
        process.send_signal(number)
    assert process.returncode != 0
    left = _kept(file)
    assert len(left) == (number == signal.SIGKILL) and all(name.endswith(".part") for name in left)
    source = data.make("images", dir=str(file), size=8)
    np.testing.assert_array_equal(source.images, np.load(file)["images"])
    (kept,) = _kept(file)
    assert not kept.endswith(".part")


@pytest.mark.slow
def test_two_processes_prepare_once(file):
    with _start(file, "slow") as first:
        _until_it_writes(file)
        with _start(file) as second:
            said = [process.communicate(timeout=120)[0].splitlines() for process in (first, second)]
    assert said[0][-1] == said[1][-1] and said[0][-1].startswith(f"{COUNT} ")
    assert [line.split()[0] for line in said[0][:-1]] == ["preparing", "prepared"]
    assert [line.split()[0] for line in said[1][:-1]] == ["waiting"]
    assert len(_kept(file)) == 1


def test_an_error_while_writing_leaves_nothing(file, monkeypatch):
    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(decoding.pictures, "square", fails)
        data.make("images", dir=str(file), size=8)
        raise AssertionError("it was not interrupted")
    assert not _kept(file)


def test_the_directory_of_a_faster_process_is_used(file, monkeypatch):
    """Where the file system has no locks."""
    from sgflow_jax.data import preparing

    prepare = preparing._prepare

    def after_another(*given):
        prepare(*given)
        (given[-1] / "theirs").touch()
        prepare(*given)

    monkeypatch.setattr(preparing, "_prepare", after_another)
    assert data.make("images", dir=str(file), size=8).size == COUNT
    (kept,) = _kept(file)
    assert (file.parent / "cache" / "sgflow_jax" / "images" / kept / "theirs").exists()


def test_memory_is_bounded_and_the_order_is_kept(file, monkeypatch):
    """A slow first chunk does not let the others run ahead without limit."""
    decode, done = decoding._decode, []

    def slow_at_first(opened, index, wanted):
        time.sleep(0.2 * (index == 0))
        done.append(index)
        return decode(opened, index, wanted)

    monkeypatch.setattr(decoding, "_decode", slow_at_first)
    monkeypatch.setattr(decoding, "THREADS", 2)
    from sgflow_jax.data import arrays

    wanted = decoding.Wanted(8, 3)
    with contextlib.closing(decoding.decode_all(arrays.origin(file).open(), wanted.pixels, True)) as images:
        assert next(images)[0] == "image 0"
        time.sleep(0.3)
        assert len(done) <= (decoding.AHEAD * 2 + 1) * decoding.CHUNK < COUNT
        assert [name for name, _ in images] == [f"image {number}" for number in range(1, COUNT)]
