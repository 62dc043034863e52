"""The distance between real examples, in the features of a comparison: what no generated examples can be expected to
undercut."""

from pathlib import Path

import ml_collections

from eval import reference
from eval.scores import real
from eval.scores.measure import Sample
from eval.tables import store
from sgflow_jax import build, data


def measured(config: ml_collections.ConfigDict, features: str, num_samples: int, folder: Path) -> store.Values:
    """Distances between real examples, from folder/real if measured before:

    halves: one half of the training examples and the other. train, test: num_samples examples of that split (or all)
    and the whole training split; test is None for data without one. counts: the number of examples in each.
    """
    known = store.Store(folder / "real")
    source = build.source(config)
    settings = {
        "data": data.title(config.data),
        "fingerprint": source.fingerprint,
        "features": features,
        "num_samples": num_samples,
    }
    if known.find(settings) is None:
        known.write(settings, _measure(config, features, num_samples))
    return known.find(settings)


def _measure(config: ml_collections.ConfigDict, features: str, num_samples: int) -> store.Values:
    extract = reference.extractor(config, features, None, None)
    target = reference.of_data(config, extract).statistics()
    found = {"halves": target.halves.distance, "train": None, "test": None}
    counts = {"halves": target.halves.counts[0]}
    for split in data.splits(config.data):
        chosen = real.shuffled(build.source(config, split))[:num_samples]
        found[split] = float(target.gaussian.distance(Sample.of(chosen.chunks(), extract).gaussian()))
        counts[split] = len(chosen)
    return {**found, "counts": counts}
