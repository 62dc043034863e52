"""All scores of generated examples, from one pass over their features."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from eval.features.interface import Features
from eval.frechet import Gaussian, Moments
from eval.scores.background import Background
from eval.scores.kernel import kernel_distance
from eval.scores.manifold import NEIGHBOURS, Manifold, manifold, precision_recall
from eval.scores.results import Scores
from sgflow_jax.interfaces import InputError

PARTS = 4
KEPT = 10_000  # features kept for KID, precision and recall: bounds memory and time
PENDING = 2  # batches whose features are added while the devices make the next


class Halves(NamedTuple):
    """The Fréchet distance between every other example and the rest, and the number of examples in each half."""

    distance: float
    counts: tuple[int, int]


@dataclasses.dataclass
class Sample:
    """Statistics of a set of features: the moments of PARTS interleaved parts, the first KEPT features, and, if there
    is a classifier, the number of examples in each class."""

    moments: tuple[Moments, ...] = dataclasses.field(default_factory=lambda: tuple(Moments() for _ in range(PARTS)))
    class_counts: np.ndarray | None = None
    count: int = 0
    _kept: list[np.ndarray] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, batches: Iterable[np.ndarray], features: Features) -> "Sample":
        """Makes one pass over batches of examples in random order, uint8 [n, H, W, C] or float32 [n, D]."""
        (sample,) = cls.of_each(batches, [features])
        return sample

    @classmethod
    def of_each(cls, batches: Iterable[np.ndarray], several: Sequence[Features]) -> list["Sample"]:
        """As `of`, in several kinds of features by one pass."""
        samples = [cls() for _ in several]
        with Background(limit=PENDING * len(several)) as adding:
            for batch in batches:
                for sample, features in zip(samples, several, strict=True):
                    found = features(batch)
                    labels = features.classify and features.classify(found)
                    counts = None if labels is None else np.bincount(labels, minlength=features.classes)
                    adding.submit(sample.add, found, counts)
            adding.wait()
        return samples

    def add(self, features: np.ndarray, class_counts: np.ndarray | None = None) -> None:
        """features: [n, D], in random order. InputError if one is not finite."""
        for part, moments in enumerate(self.moments):
            moments.add(features[(part - self.count) % PARTS :: PARTS])
        if (room := KEPT - self.count) > 0:
            self._kept.append(features[:room])
        if class_counts is not None:
            self.class_counts = class_counts + (0 if self.class_counts is None else self.class_counts)
        self.count += len(features)

    def gaussian(self) -> Gaussian:
        """Fits all features. InputError for fewer than two, or if they are all the same."""
        return _fit(self.moments)

    def halves(self) -> tuple[Gaussian, Gaussian]:
        """Fits every other example, and the rest."""
        return _fit(self.moments[0::2]), _fit(self.moments[1::2])

    def halves_apart(self) -> Halves:
        """The distance between the `halves`."""
        first, second = self.halves()
        return Halves(first.distance(second), (-(-self.count // 2), self.count // 2))

    def kept(self) -> np.ndarray:
        """[min(n, KEPT), D]."""
        return np.concatenate(self._kept)


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What samples are compared with. features: [n, D], at most KEPT, in random order; None where only the moments are
    known. halves: None if not measured."""

    gaussian: Gaussian
    features: np.ndarray | None
    halves: Halves | None = None

    def manifold(self, count: int) -> Manifold:
        """The manifold of the first `count` features."""
        return _manifold(self, count)


@functools.lru_cache(maxsize=4)  # the same for every row of a sweep with up to so many resize rules
def _manifold(reference: "Reference", count: int) -> Manifold:
    return manifold(reference.features[:count])


def scores(sample: Sample, reference: Reference) -> Scores:
    """Compares a sample with a reference. InputError for fewer than two examples, or if all features are the same."""
    fitted = sample.gaussian()
    value = reference.gaussian.distance(fitted)
    error, parts, infinite = _uncertainty(sample, fitted, reference.gaussian, value)
    kernel = shares = None
    if reference.features is not None:
        kept = sample.kept()
        kernel = kernel_distance(kept, reference.features)
        count = min(len(kept), len(reference.features))
        if count > NEIGHBOURS:
            shares = precision_recall(manifold(kept[:count]), reference.manifold(count))
    return Scores(
        value=value,
        value_error=error,
        value_parts=parts,
        value_infinite=infinite,
        kernel=kernel and kernel.value,
        kernel_error=kernel and kernel.standard_error,
        precision=shares and shares.precision,
        recall=shares and shares.recall,
        class_counts=None if sample.class_counts is None else tuple(int(n) for n in sample.class_counts),
    )


def _uncertainty(
    sample: Sample, fitted: Gaussian, reference: Gaussian, value: float
) -> tuple[float | None, tuple[float, ...] | None, float | None]:
    """The standard error of the distance, the distances of the parts, and the limit for infinitely many samples.

    Error: to first order the distance is an average over examples. Limit: the bias falls like 1 / n (Chong & Forsyth
    2020), so a line through the mean distances at n, n / 2 and n / PARTS against 1 / n is extrapolated to 0. None
    unless the smallest part has twice as many examples as features: with fewer, the bias does not yet fall like 1 / n.
    """
    if min(part.count for part in sample.moments) < 2 * len(reference.mean):
        return None, None, None
    influence = fitted.influence(reference, sample.kept())
    parts = tuple(reference.distance(_fit([part])) for part in sample.moments)
    halves = [reference.distance(half) for half in sample.halves()]
    relative = [1.0, 2.0, float(PARTS)]  # 1 / n, times n
    slope, limit = np.polyfit(relative, [value, np.mean(halves), np.mean(parts)], 1)
    return float(np.std(influence) / np.sqrt(sample.count)), parts, float(limit)


def _fit(parts) -> Gaussian:
    moments = Moments.merged(parts)
    cov = moments.cov()
    if not np.trace(cov) > 0:
        raise InputError(
            f"the features of all {moments.count} examples are the same, so there is no distribution to compare: check "
            "the generated examples, or use other features"
        )
    return Gaussian(moments.mean(), cov)
