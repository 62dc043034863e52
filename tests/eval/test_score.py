"""Samples that other code made: what is measured, and what is refused."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import features, reference, score
from eval.features.interface import Features
from eval.fid_sweep import Request as SweepRequest
from eval.fid_sweep import sweep
from eval.scores import given, results
from eval.scores.measure import Reference
from sgflow_jax import data, sample_run
from sgflow_jax.interfaces import InputError
from tests import tiny

PIXELS = features.make("pixels")


def _score(samples, against="digits", **options):
    return score.score(score.Request(str(samples), str(against), **{"features": "pixels", **options}))


def _folder(folder: Path, images) -> Path:
    for number, image in enumerate(images):
        file = folder / f"part {number % 2}" / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(file)
    return folder


def _noise(count, size=8, channels=1):
    return np.random.default_rng(0).integers(256, size=(count, size, size, channels), dtype=np.uint8)


def test_our_own_samples_have_the_value_of_the_sweep(digits_run, tmp_path, capsys, undrawn):
    (swept,) = sweep([digits_run], SweepRequest(calls=(2,)))[digits_run]
    request = sample_run.Request(calls=(2,), num_samples=80, method=None, seed=0)
    sample_run.sample(digits_run, tiny.digits("flow_matching"), f"{tmp_path}/png/", request)
    (row,) = _score(tmp_path / "png")
    assert row.identity.reference == swept.identity.reference
    for name in ("value", "kernel", "precision", "recall"):
        assert getattr(row.scores, name) == pytest.approx(getattr(swept.scores, name), rel=1e-12)
    assert (row.scores.kernel_error is None) == (swept.scores.kernel_error is None)

    # The same images in a file, against images in an archive.
    images = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "png").iterdir())])
    np.savez(tmp_path / "s.npz", arr_0=images)
    digits = _folder(tmp_path / "digits", data.make("digits").images)
    with zipfile.ZipFile(tmp_path / "digits.zip", "w") as archive:
        for file in sorted(digits.rglob("*.png")):
            archive.write(file, file.relative_to(digits))
    (other,) = _score(tmp_path / "s.npz", tmp_path / "digits.zip")
    assert other.identity.samples_fingerprint == row.identity.samples_fingerprint
    assert other.identity.reference.data == "digits.zip" and other.identity.reference.reference_count == 1797
    assert other.scores.value == pytest.approx(row.scores.value, rel=1e-12)

    # A row for each measurement, in place of an earlier one.
    file = tmp_path / "scores.jsonl"
    file.write_text("of another\n")
    for rows in ([row], [row, other]):
        given.append(file, rows)
    another, *lines = file.read_text().splitlines()
    assert another == "of another" and [json.loads(line) for line in lines] == [
        json.loads(json.dumps(each.flat())) for each in (row, other)
    ]
    assert f"{row.scores.value:.4g}" in given.screen([row]) and "1,797 of digits/train" in given.screen([row])


def test_few_images_and_grey_ones_among_coloured(tmp_path):
    colour = _folder(tmp_path / "colour", _noise(40, channels=3))
    few = _folder(tmp_path / "few", _noise(7, channels=3))
    Image.fromarray(_noise(1)[0, ..., 0]).save(few / "part 1" / "0005.png")
    (row,) = _score(few, colour)
    assert row.identity.num_samples == 7 and row.scores.value > 0 and row.scores.value_error is None
    assert "the distance has a large bias" in given.screen([row])


@pytest.fixture
def places(tmp_path):
    """Samples that cannot be measured, by name."""
    mixed = _folder(tmp_path / "two sizes", _noise(3))
    Image.fromarray(_noise(1, 16)[0, ..., 0]).save(mixed / "part 1" / "z.png")
    mixed = _folder(tmp_path / "two kinds", _noise(3))
    Image.fromarray(_noise(1, channels=3)[0]).save(mixed / "part 1" / "z.png")
    _folder(tmp_path / "one", _noise(1))
    _folder(tmp_path / "grey", _noise(3, 32))
    _folder(tmp_path / "digits", _noise(3))
    _folder(tmp_path / "damaged", _noise(3))
    (tmp_path / "damaged" / "part 0" / "0002.png").write_bytes(b"PNG")
    (_folder(tmp_path / "steps", _noise(3)) / "part 0").rename(tmp_path / "steps" / "steps_1")
    (tmp_path / "steps" / "part 1").rename(tmp_path / "steps" / "steps_2")
    np.savez(tmp_path / "float.npz", samples=_noise(3).astype(np.float32))
    np.savez(tmp_path / "first.npz", arr_0=np.zeros((3, 3, 8, 8), np.uint8))
    np.savez(tmp_path / "steps.npz", steps_1=_noise(3), steps_2=_noise(3))
    return tmp_path


@pytest.mark.parametrize(
    "samples, against, match",
    [
        ("two sizes", "digits", "two sizes, part 0/0000.png of 8 x 8 pixels and part 1/z.png of 16 x 16"),
        ("two kinds", "digits", "grey and coloured images, part 0/0000.png and part 1/z.png: make all"),
        ("one", "digits", "has one image: use 2 or more"),
        ("grey", "cifar10", "samples are 32 x 32 x 1, but those of cifar10 are 32 x 32 x 3"),
        ("damaged", "digits", "0002.png in the folder .* cannot be read .no PNG, JPEG or WebP.: repair"),
        ("steps", "digits", "samples in several numbers of steps: give one, like .*steps_1"),
        ("float.npz", "digits", "samples is float32 .3, 8, 8, 1.: save uint8, as"),
        ("first.npz", "digits", "arr_0 is uint8 .3, 3, 8, 8., with the channels before .* save transpose"),
        ("steps.npz", "digits", "it has steps_1, steps_2, each of them images: save one"),
        ("none", "digits", "--samples is .*none', which does not exist"),
        ("digits", "cifar100", "--against=cifar100 does not exist: give digits, cifar10"),
    ],
)
def test_what_cannot_be_measured_is_named(samples, against, match, places):
    with pytest.raises(InputError, match=match):
        _score(places / samples, against)


def test_published_moments_give_the_same_distance_and_no_more(tmp_path, digits_run, capsys, undrawn):
    found = reference.of_data(tiny.digits().data, PIXELS).statistics()
    file = tmp_path / "fid refs.npz"
    np.savez(file, mu=found.gaussian.mean, sigma=found.gaussian.cov)
    samples = _folder(tmp_path / "samples", _noise(40))
    (whole,), (row,) = _score(samples), _score(samples, file)
    assert row.scores.value == pytest.approx(whole.scores.value, rel=1e-12)
    assert row.scores.kernel is row.scores.kernel_error is row.scores.precision is row.scores.recall is None
    against = results.against(row.identity.reference)
    assert against.startswith("fid_refs.npz (moments only, SHA-256 ") and len(row.identity.reference.fingerprint) == 12
    assert "give no kernel distance, precision or recall" in given.screen([row])

    (swept,) = sweep([digits_run], SweepRequest(calls=(1,), reference=str(file)))[digits_run]
    assert swept in results.read(digits_run) and against in results.table([swept])
    assert swept.identity.reference.data == "digits" and swept.scores.kernel is None

    reference.save(tmp_path / "ours.npz", whole.identity.reference, Reference(found.gaussian, found.features))
    assert _score(samples, tmp_path / "ours.npz") == [whole]


@pytest.mark.parametrize(
    "mu, sigma, match",
    [
        (np.zeros(8), np.eye(8), r"mu \[8\] and sigma \[8, 8\], but the features tiny have 4 values: use the features"),
        (np.zeros((1, 4)), np.eye(4), r"mu \[1, 4\] and sigma"),
        (np.zeros(4), np.triu(np.ones((4, 4))), "not symmetric positive semidefinite"),
        (np.zeros(4), np.diag([1, 1, 1, np.nan]), "not finite"),
        (np.array(["a"] * 4), np.eye(4), "no sound mu and sigma"),
        (np.array([None] * 4), np.eye(4), "no sound mu and sigma"),  # a pickle
    ],
)
def test_moments_that_do_not_fit_are_named(mu, sigma, match, tmp_path):
    extract = Features("tiny", lambda images: np.zeros((len(images), 4), np.float32))
    np.savez(tmp_path / "m.npz", mu=mu, sigma=sigma)
    with pytest.raises(InputError, match=f"reference .*m.npz has .*{match}"):
        reference.of_file(str(tmp_path / "m.npz"), extract, (8, 8, 1))
