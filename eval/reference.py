"""Computes reference statistics of real examples.

    python -m eval.reference --config=configs/cifar10.py --features=efficientnet_lite0
    python -m eval.reference --config=configs/quickstart.py --selfcheck

Uses the same code as for generated examples, and caches the statistics under a name that contains everything they
depend on. --selfcheck calibrates the distances: real examples against other real ones, and against damaged ones.
"""

import contextlib
import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import ml_collections
import numpy as np
from absl import flags

from eval import features
from eval.features import download
from eval.features.interface import Features, Labelled
from eval.frechet import Gaussian
from eval.scores import moments, progress, real, selfcheck
from eval.scores.measure import Halves, Reference, Sample
from eval.scores.results import VERSION, ReferenceIdentity, plus_minus
from sgflow_jax import build, cli, data, terminal
from sgflow_jax.data import fingerprint
from sgflow_jax.devices import processes
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

CLASSIFIED = 60_000  # most images that a classifier is trained on
CIFAR10_FID = 3.15  # of all training images to all test images


class Target(NamedTuple):
    """The reference of generated examples, in one kind of features. statistics: reads or computes them on the first
    process, None on the others; InputError if the data are constant."""

    features: Features
    identity: ReferenceIdentity
    statistics: Callable[[], Reference | None]


class Readable(fingerprint.Readable, Protocol):
    """What statistics are computed of: a `data.Source`, or other examples that are read by index."""

    @property
    def fingerprint(self) -> str: ...


def extractor(selection: Any, name: str, weights: str | None, resize: str | None) -> Features:
    """The features for a data set. selection: a `data.Request`, or a configuration's section `data`. InputError if they
    do not fit the data."""
    if len(data.shape(selection)) == 1 and name in features.names() and name != "pixels":
        raise InputError(f"{selection.name} consists of points, but {name} needs images: use --features=pixels")
    labelled = None
    if name == "classifier" and data.classes(selection):
        train = data.read(data.request(selection))
        indices = fingerprint.spread(train.size, CLASSIFIED)
        labelled = Labelled(data.title(selection), train.read(indices), train.labels[indices], len(train.classes))
    return features.make(name, weights, resize, labelled)


def of_data(selection: Any, extract: Features, split: str = "train") -> Target:
    """Target from a split of a data set, selected as in `extractor`; InputError if the data are missing."""
    return of_examples(data.title(selection), split, data.read(data.request(selection, split)), extract)


def of_examples(title: str, split: str, source: Readable, extract: Features) -> Target:
    """Target from the examples of a source. title, split: for its identity. InputError if it cannot be read."""
    identity = _identity(extract, title, split, source.fingerprint, source.size)
    return Target(extract, identity, lambda: _from_cache_or_data(identity, source, extract))


def of_file(file: str, extract: Features, shape: tuple[int, ...], selection: Any = None) -> Target:
    """Target from a file of `save`, or one of published moments.

    shape: of an example to be compared. selection: of a run's data, as in `extractor`. InputError unless the file is
    for these features, and, if it says what it is of, of that data set.
    """
    if moments.published(Path(file)):
        title = "" if selection is None else data.title(selection)
        sha256 = download.sha256_of(Path(file))[: fingerprint.DIGITS]
        identity = _identity(extract, title, "", sha256, 0, moments.title(Path(file)))
        gaussian = moments.read(Path(file), extract, shape)
        return Target(extract, identity, lambda: Reference(gaussian, None))
    identity, statistics = load(Path(file))
    theirs = [identity.features, identity.weights, identity.resize, identity.version]
    ours = [extract.name, extract.weights, extract.resize, VERSION]
    if selection is not None:
        theirs.insert(0, identity.data)
        ours.insert(0, data.title(selection))
        # If the data are available, the fingerprint must match; otherwise the file replaces them.
        with contextlib.suppress(InputError):
            ours.append(data.read(data.request(selection, identity.split)).fingerprint)
            theirs.append(identity.fingerprint)
    if theirs != ours:
        described = [" ".join(str(part) for part in parts if part) for parts in (theirs, ours)]
        raise InputError(
            f"reference {file} is of {described[0]}, but {described[1]} is needed: give a matching one, or the data"
        )
    return Target(extract, identity, lambda: statistics)


def _identity(extract: Features, title: str, split: str, of: str, count: int, file: str = "") -> ReferenceIdentity:
    return ReferenceIdentity(
        version=VERSION,
        data=title,
        split=split,
        fingerprint=of,
        reference_count=count,
        features=extract.name,
        weights=extract.weights,
        resize=extract.resize,
        moments=file,
    )


def has_statistics(file: Path) -> bool:
    """Whether a file is one of `save` or of published moments, and not images."""
    try:
        return moments.published(file) or "identity" in disk.array_shapes(file)
    except InputError:
        return False


def cached(identity: ReferenceIdentity) -> Path:
    """The cache file of statistics, whose name contains everything they depend on."""
    name = "-".join(str(part) for part in dataclasses.astuple(identity) if part != "")
    return disk.cache() / "reference" / f"{name}.npz"


def save(file: Path, identity: ReferenceIdentity, reference: Reference) -> None:
    """Writes statistics and their identity."""
    arrays = {"mean": reference.gaussian.mean, "cov": reference.gaussian.cov, "features": reference.features}
    if reference.halves is not None:
        arrays |= {"halves": np.array([reference.halves.distance, *reference.halves.counts])}
    disk.write_arrays(file, {"identity": np.array(json.dumps(dataclasses.asdict(identity))), **arrays})


def load(file: Path) -> tuple[ReferenceIdentity, Reference]:
    """Reads a file of `save`; InputError if it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            identity = ReferenceIdentity(**json.loads(str(arrays["identity"])))
            gaussian = Gaussian(arrays["mean"], arrays["cov"])
            halves = None
            if "halves" in arrays:
                distance, *counts = arrays["halves"].tolist()
                halves = Halves(distance, tuple(map(int, counts)))
            return identity, Reference(gaussian, arrays["features"], halves)
    except FileNotFoundError as error:
        raise InputError(f"reference {file} is missing: make it with python -m eval.reference") from error
    # The exception of np.load depends on the damaged byte.
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, InputError) as error:
        raise InputError(f"reference {file} is damaged: recreate it with python -m eval.reference") from error


def _from_cache_or_data(identity: ReferenceIdentity, source: Readable, extract: Features) -> Reference | None:
    file = cached(identity)
    found = processes.on_first(lambda: _from_cache(file, identity))
    if processes.from_process(found is not None):
        return found
    examples = real.shuffled(source)
    what = f"reference statistics of {identity.title}"
    unit = "images" if source.read(np.zeros(1, int)).ndim == 4 else "points"
    sample = Sample.of(progress.track(examples.chunks(), what, len(examples), unit), extract)
    found = processes.on_first(lambda: Reference(sample.gaussian(), sample.kept(), sample.halves_apart()))
    if found:
        try:
            save(file, identity, found)
        except InputError as error:  # the statistics can still be used
            terminal.say(f"warning: the statistics were not cached: {error}", to_stderr=True)
    return found


def _from_cache(file: Path, identity: ReferenceIdentity) -> Reference | None:
    """None if the file is missing or damaged."""
    try:
        found, reference = load(file)
    except InputError:
        return None
    return reference if found == identity and reference.halves else None


def halves(identity: ReferenceIdentity) -> Halves | None:
    """Distance between two halves of a reference, if its statistics are cached; computes nothing."""
    reference = _from_cache(cached(identity), identity)
    return reference and reference.halves


def define_flags() -> None:
    """Defines the flags of the command."""
    cli.define_config("FILE.py, like configs/cifar10.py; determines the data.")
    features.define_flags()
    flags.DEFINE_enum("split", "train", data.SPLITS, "Split of the data.")
    flags.DEFINE_bool("selfcheck", False, "Instead, compare real examples with each other and with damaged ones.")
    flags.DEFINE_integer("num_samples", None, "With --selfcheck: examples per split; by default all.", lower_bound=4)


def main(_):
    given = flags.FLAGS
    cli.require(config=given.config)
    if given.num_samples is not None and not given.selfcheck:
        raise InputError("--num_samples needs --selfcheck: add it, or leave out --num_samples")
    if given.selfcheck and given["split"].present:
        raise InputError("--selfcheck compares all splits: leave out --split")
    cli.start_jax()
    config = given.config
    data.check_split(config.data, given.split)
    for rule in features.rules(given.resize):
        extract = extractor(config.data, given.features or config.eval.features, given.inception_weights, rule)
        if given.selfcheck:
            _print_selfcheck(config, extract, given.num_samples)
        else:
            _print_file(of_data(config.data, extract, given.split))


def _print_file(target: Target) -> None:
    """Computes the statistics, and prints their identity and file on the first process."""
    target.statistics()
    if jax.process_index() == 0:
        for field, value in dataclasses.asdict(target.identity).items():
            terminal.say(f"{field}: {value}")
        terminal.say(f"file: {cached(target.identity)}")


def _print_selfcheck(config: ml_collections.ConfigDict, extract: Features, num_samples: int | None) -> None:
    """Prints a Markdown table on the first process, line by line because each takes long."""
    say = terminal.say if jax.process_index() == 0 else lambda line: None
    sets = [real.shuffled(build.source(config, split))[:num_samples] for split in data.splits(config.data)]
    name = features.distance_name(extract.name, extract.weights, extract.resize)
    say(f"| {data.title(config.data)} | examples | {name} | kernel distance |\n| --- | --- | --- | --- |")
    for row in selfcheck.compare(sets[0], sets[1] if len(sets) > 1 else None, extract):
        counts = " / ".join(f"{count:,}" for count in row.counts)
        say(f"| {row.what} | {counts} | {row.distance:.4g} | {plus_minus(*row.kernel)} |")
        if row.what == "train, test" and name == "FID" and data.title(config.data) == "cifar10" and num_samples is None:
            say(f"| the same, as published for CIFAR-10 | {counts} | {CIFAR10_FID} | |")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
