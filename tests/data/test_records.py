"""Batches of images that are not in memory."""

import contextlib
import itertools
import pickle
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from absl import logging

from configs import imagenet64
from eval import features, reference
from eval.scores import real
from sgflow_jax import data
from sgflow_jax.data import fingerprint
from sgflow_jax.interfaces import InputError
from tests import tiny_records
from tests.commands import ROOT

COUNT, SIZE = 37, 8  # an epoch ends inside a batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    logging.set_verbosity(logging.ERROR)  # TFDS recommends OpenCV
    directory = tmp_path_factory.mktemp("records")
    tiny_records.write(directory, count=COUNT)
    tiny_records.write(directory, size=32, count=5)
    return str(directory)


def _source(folder, **options):
    return data.make("imagenet64", folder, **options)


def _take(source, count, start=0, rows=None, seed=0, batch_size=SIZE):
    rows = np.arange(batch_size) if rows is None else np.asarray(rows)
    with contextlib.closing(source.batches(seed, start, batch_size, rows)) as batches:
        return list(itertools.islice(batches, count))


def _images(batches):
    return np.concatenate([batch["x"] for batch in batches])


def _numbers(images):
    """The numbers of images from `tiny_records`, whether mirrored or not."""
    return images[:, 0, 0, 0] + 256 * images[:, 0, 0, 2].astype(int)


def test_reads_the_written_images(folder):
    source = _source(folder, flip=True)
    order = np.array([3, 0, COUNT - 1, 3])
    np.testing.assert_array_equal(source.read(order), tiny_records.images(64, COUNT)[order])
    small = data.make("imagenet32", folder, split="test")
    np.testing.assert_array_equal(small.read(np.arange(8)), tiny_records.images(32, 8, "validation"))
    made = fingerprint.of_arrays(tiny_records.images(32, 8, "validation"))
    assert small.identity() == {"name": "imagenet32", "split": "test", "examples": 8, "fingerprint": made}


def test_each_epoch_is_another_permutation(folder):
    seen = _numbers(_images(_take(_source(folder), 10)))
    epochs = seen[:COUNT], seen[COUNT : 2 * COUNT]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
    assert np.any(epochs[0] != epochs[1]) and np.any(epochs[0] != np.arange(COUNT))


def test_the_order_depends_on_the_seed(folder):
    epochs = [_numbers(_images(_take(_source(folder), 5, seed=seed)))[:COUNT] for seed in (0, 1, 0)]
    np.testing.assert_array_equal(epochs[0], epochs[2])
    # The second epoch of one seed differs from the first of the next.
    second = _numbers(_images(_take(_source(folder), 10)))[COUNT : 2 * COUNT]
    assert np.any(epochs[1] != epochs[0]) and np.any(epochs[1] != second)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_read_parts_of_one_batch(folder, processes):
    source = _source(folder, flip=True)
    whole = _take(source, 6)
    shares = [np.arange(SIZE)[process::processes] for process in range(processes)]
    parts = [_take(source, 6, rows=rows) for rows in shares]
    for step, batch in enumerate(whole):
        for rows, part in zip(shares, parts, strict=True):
            for name in batch:
                np.testing.assert_array_equal(part[step][name], batch[name][rows])


@pytest.mark.parametrize("start", [1, 4, 5, 9])
def test_a_resumed_run_sees_the_same_batches(folder, start):
    source = _source(folder, flip=True)
    np.testing.assert_array_equal(_images(_take(source, 3, start)), _images(_take(source, start + 3))[-3 * SIZE :])


def test_flips_mirror_half_of_the_images(folder):
    plain, flipped = (_images(_take(_source(folder, flip=flip), 20)) for flip in (False, True))
    mirrored = flipped[:, 0, 0, 1] == 255
    assert 0.35 < mirrored.mean() < 0.65 and len(np.unique(mirrored.reshape(20, SIZE), axis=0)) > 10
    np.testing.assert_array_equal(np.where(mirrored[:, None, None, None], flipped[:, :, ::-1], flipped), plain)


def test_there_are_no_labels(folder):
    (batch,) = _take(_source(folder), 1)
    assert (
        batch["label"].dtype == np.int32 and not batch["label"].any() and data.classes(data.Request("imagenet64")) == ()
    )


def test_workers_equal_threads_and_end(folder):
    """They ignore stop signals, because the run still waits for a batch."""
    rows = np.arange(SIZE)[1::2]
    threads = _take(_source(folder, flip=True), 6, start=3, rows=rows)
    batches = _source(folder, flip=True, num_workers=2).batches(0, 3, SIZE, rows)
    workers = [next(batches), next(batches)]  # one of each, so that both have started
    for worker in _workers():
        worker.send_signal(signal.SIGINT)
        worker.send_signal(signal.SIGHUP)
        worker.terminate()
    workers += itertools.islice(batches, 4)
    for ours, theirs in zip(threads, workers, strict=True):
        for name in ours:
            assert type(theirs[name]) is np.ndarray
            np.testing.assert_array_equal(ours[name], theirs[name])
    running = _workers()
    assert len(running) == 2
    del batches
    assert not psutil.wait_procs(running, timeout=20)[1]


def _workers(of=None):
    return [child for child in psutil.Process(of).children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_workers_end_with_a_run_that_is_killed(folder):
    code = f"""
import numpy as np
from sgflow_jax import data
if __name__ == "__main__":
    batches = data.make("imagenet64", {folder!r}, num_workers=2).batches(0, 0, 4, np.arange(4))
    next(batches), next(batches)
    print("ready", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stdout.readline() == b"ready\n"
        running = _workers(run.pid)
        assert len(running) == 2
        run.kill()
        assert not psutil.wait_procs(running, timeout=20)[1]


@pytest.fixture
def damaged(tmp_path):
    folder = tiny_records.write(tmp_path, count=COUNT)
    return str(tmp_path), sorted(folder.glob("*-train.array_record*"))


def _fault(make):
    """The message of the InputError of make(), of one line."""
    with pytest.raises(InputError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_not_prepared(tmp_path):
    prepare = "imagenet64 is not prepared.*make data DATASET=downsampled_imagenet/64x64.*data_dir"
    assert re.search(prepare, _fault(lambda: _source(str(tmp_path))))
    tiny_records.write(tmp_path, size=32)
    assert re.search(prepare, _fault(lambda: _source(str(tmp_path))))
    shutil.rmtree(tmp_path / "downsampled_imagenet" / "32x32" / "2.0.0")
    assert "not prepared" in _fault(lambda: data.make("imagenet32", str(tmp_path)))


def test_a_missing_file(damaged):
    directory, files = damaged
    files[-1].unlink()
    fault = _fault(lambda: _source(directory))
    assert re.search("imagenet64 in .* is damaged .*remove it and run `make data DATASET=", fault)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_file(damaged, num_workers):
    directory, files = damaged
    content = bytearray(files[0].read_bytes())
    half = len(content) // 2
    content[half : half + 100] = bytes(100)
    source = _source(directory, num_workers=num_workers)
    files[0].write_bytes(content)
    again = pickle.loads(pickle.dumps(source))  # without anything read before
    assert re.search("imagenet64 in .* is damaged", _fault(lambda: _take(again, 5)))


def test_images_of_another_shape(tmp_path):
    images = list(tiny_records.images(64, 9))
    images[5] = images[5][:32]
    tiny_records.write_images(tmp_path, 64, {"train": images})
    source = _source(str(tmp_path))
    assert "image 5 is uint8 (32, 64, 3), not uint8 (64, 64, 3)" in _fault(lambda: _take(source, 2))
    shutil.rmtree(tmp_path / "downsampled_imagenet")
    tiny_records.write_images(tmp_path, 64, {"train": tiny_records.images(32, 9)})
    assert "image 0 is uint8 (32, 32, 3)" in _fault(lambda: _source(str(tmp_path)))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_reported(folder):
    with contextlib.closing(_source(folder, num_workers=1).batches(0, 0, SIZE, np.arange(SIZE))) as batches:
        next(batches)
        for worker in _workers():
            worker.kill()
        fault = _fault(lambda: list(itertools.islice(batches, 9)))
    assert re.search("a process that decodes imagenet64 ended .*num_workers", fault)


def test_statistics_equal_those_of_all_images_at_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(real, "CHUNK", 10)
    config = imagenet64.get_config()
    config.data.name, config.data.size = "imagenet64", 0
    config.data.data_dir = folder
    counted, pixels = [], features.make("pixels")
    extract = features.Features("small", lambda x: counted.append(len(x)) or pixels(x)[:, ::999])
    target = reference.of_data(config.data, extract)
    assert target.identity.reference_count == COUNT
    found = target.statistics().gaussian
    assert counted == [10, 10, 10, 7]
    at_once = extract(tiny_records.images(64, COUNT)).astype(np.float64)
    np.testing.assert_allclose(found.mean, at_once.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.cov, np.cov(at_once.T), atol=1e-6)


def test_a_negative_number_of_workers_is_rejected():
    with pytest.raises(InputError, match="num_workers is -1: use 0"):
        data.make("imagenet64", num_workers=-1)
