"""Scores samples that other code made.

    python -m eval.score --samples=FOLDER --against=cifar10
    python -m eval.score --samples=samples.npz --against=photos/ --features=efficientnet_lite0

Computes what eval.fid_sweep does for its own samples, by the same code. Samples: a folder of PNG, JPEG or WebP files, a
.zip of one, or an .npz with an array images, samples or arr_0, uint8 [N, H, W, C]. Nothing is resized but for the
features. Prints a table and adds rows with the identity of all that was compared to a file.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from eval import features, reference
from eval.scores import given, measure, moments, real, results
from eval.scores.identity import Given
from eval.scores.progress import say, track
from sgflow_jax import __version__, cli, data
from sgflow_jax.data import unaltered
from sgflow_jax.files import disk, places
from sgflow_jax.interfaces import InputError

# Data sets of images that need no folder.
NAMED = tuple(name for name in data.names() if name != "images" and not data.of_points(name))


class Request(NamedTuple):
    """What to compare. samples: a folder, .npz or .zip. against: one of NAMED; images, as samples; or statistics, as
    for `reference.of_file`. features, weights: see `features.make`. resize: its rules, each for a row of its own.
    data_dir: of TFDS."""

    samples: str
    against: str
    features: str = "inception"
    weights: str | None = None
    resize: tuple[str | None, ...] = (None,)
    data_dir: str = ""


def score(request: Request) -> list[results.Row]:
    """Measures the samples, in a random order that is always the same: a row for each rule of request.resize.

    InputError, before features are computed, for images or statistics that cannot be compared.
    """
    samples = _images("--samples", request.samples)
    if samples.size < 2:
        raise InputError(f"{samples.title} has one image: use 2 or more, a distance needs a covariance")
    targets = _targets(request, samples.shape)
    say(f"reading {samples.size:,} images of {samples.title}")
    own = samples.fingerprint  # reads every image, before any longer work
    identities = [Given(request.samples, own, samples.size, target.identity) for target in targets]
    statistics = [target.statistics() for target in targets]
    chunks = track(real.shuffled(samples).chunks(), samples.title, samples.size, "images")
    found = measure.Sample.of_each(chunks, [target.features for target in targets])
    return [
        results.Row(identity, measure.scores(sample, each), results.Origin(__version__))
        for identity, sample, each in zip(identities, found, statistics, strict=True)
    ]


def _targets(request: Request, shape: tuple[int, int, int]) -> list[reference.Target]:
    """The reference by each resize rule. shape: of the samples. InputError if they do not fit it."""
    name, weights = request.features, request.weights
    if request.against in NAMED:
        selection = data.Request(request.against, request.data_dir)
        _check_shape(request.against, data.shape(selection), shape)
        kinds = [reference.extractor(selection, name, weights, rule) for rule in request.resize]
        return [reference.of_data(selection, extract) for extract in kinds]
    against = places.path("--against", request.against)
    if not Path(against).exists():
        raise InputError(
            f"--against={request.against} does not exist: give {', '.join(NAMED)}, images, or a file of statistics"
        )
    if reference.has_statistics(Path(against)):
        kinds = [features.make(name, weights, rule) for rule in request.resize]
        return [reference.of_file(against, extract, shape) for extract in kinds]
    images = _images("--against", against)
    _check_shape(images.title, images.shape, shape)
    kinds = [features.make(name, weights, rule) for rule in request.resize]
    title = moments.title(Path(against))
    return [reference.of_examples(title, "", images, extract) for extract in kinds]


def _images(what: str, place: str) -> unaltered.Unaltered:
    """The images that a flag names. InputError as in `unaltered.read`."""
    found = unaltered.read(what, place)
    steps = [name for name in found.opened.classes if re.fullmatch(r"steps_\d+", name)]
    if len(steps) > 1:
        raise InputError(f"{what}={place} has samples in several numbers of steps: give one, like {place}/{steps[0]}")
    for note in found.opened.notes:
        say(f"{found.title}: {note}")
    return found


def _check_shape(title: str, theirs: Sequence[int], ours: Sequence[int]) -> None:
    """InputError unless samples and reference have the same size and channels."""
    if tuple(theirs) != tuple(ours):
        shown = [" x ".join(map(str, shape)) for shape in (ours, theirs)]
        raise InputError(
            f"the samples are {shown[0]}, but those of {title} are {shown[1]} (height, width, channels): make both "
            "alike, or give a file of statistics"
        )


def define_flags() -> None:
    cli.define_path("samples", None, "A folder, .npz or .zip of images.")
    flags.DEFINE_string(
        "against",
        None,
        f"What to compare with: {', '.join(NAMED)}; a folder, .npz or .zip of images; or a file of statistics, by "
        "eval.reference or published, with mu and sigma.",
    )
    features.define_flags("inception")
    cli.define_path("data_dir", "", "Where TFDS has its data sets.")
    cli.define_path("out", "scores.jsonl", "File to which rows are added.")


def main(_):
    asked = flags.FLAGS
    cli.require(samples=asked.samples, against=asked.against, out=asked.out)
    request = Request(
        samples=asked.samples,
        against=asked.against,
        features=asked.features,
        weights=asked.inception_weights,
        resize=features.rules(asked.resize),
        data_dir=asked.data_dir,
    )
    file = Path(asked.out)
    disk.check_writable(file)
    cli.start_jax(alone=True)
    rows = score(request)
    say(f"\n{given.screen(rows)}\n")
    given.append(file, rows)
    say(f"wrote {file}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
