"""The distance between real examples, in the features of a comparison: what no generated examples can be expected to
undercut."""

import math
from pathlib import Path

import ml_collections

from eval import reference
from eval.comparison.summary import Identity
from eval.features.interface import Features
from eval.scores import real
from eval.scores.measure import Sample
from eval.tables import store
from sgflow_jax import build, data


def measured(config: ml_collections.ConfigDict, extract: Features, num_samples: int, folder: Path) -> store.Values:
    """Distances between real examples, from folder/real if measured before:

    halves: one half of the training examples and the other. train, test: num_samples examples of that split (or all)
    and the whole training split; test is None for data without one. counts: the number of examples in each.
    """
    settings = {
        "data": data.title(config.data),
        "fingerprint": build.source(config).fingerprint,
        "features": extract.name,
        "weights": extract.weights,
        "num_samples": num_samples,
    }
    rows = store.Store(folder / "real")
    if rows.find(settings) is None:
        rows.write(settings, _measure(config, extract, num_samples))
    return rows.find(settings)


def known(identity: Identity, num_samples: int, folder: Path) -> store.Values | None:
    """Those that were measured with the same; None if they were not."""
    wanted = {**identity._asdict(), "num_samples": num_samples}
    rows = store.Store(folder / "real").every()
    return next((row for row in rows if wanted.items() <= row.items()), None)


def spread(identities: list[Identity], num_samples: int, folder: Path) -> float:
    """By how much, relative, the distance of the halves differs between weights; infinite if it is not known for all.

    A classifier that is trained anew on another machine has other weights by rounding, and the same distances to 1e-6.
    """
    found = [known(identity, num_samples, folder) for identity in identities]
    if len(found) > 1 and None in found:
        return math.inf
    halves = [row["halves"] for row in found if row is not None]
    return max(halves) / min(halves) - 1 if halves else 0.0


def _measure(config: ml_collections.ConfigDict, extract: Features, num_samples: int) -> store.Values:
    target = reference.of_data(config.data, extract).statistics()
    found = {"halves": target.halves.distance, "train": None, "test": None}
    counts = {"halves": target.halves.counts[0]}
    for split in data.splits(config.data):
        chosen = real.shuffled(build.source(config, split))[:num_samples]
        found[split] = float(target.gaussian.distance(Sample.of(chosen.chunks(), extract).gaussian()))
        counts[split] = len(chosen)
    return {**found, "counts": counts}
