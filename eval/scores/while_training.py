"""Distances of a network while it trains, for its log: config.eval.every."""

from collections.abc import Callable

import ml_collections

from eval import reference
from eval.scores.measure import Sample
from sgflow_jax import build, data, generate, sampling
from sgflow_jax.devices import processes
from sgflow_jax.models import BoundNet
from sgflow_jax.run import classes
from sgflow_jax.run.metric_log import Distance


def scorer(config: ml_collections.ConfigDict) -> Callable[[BoundNet], dict[str, float]]:
    """score(net) -> Fréchet distances by `Distance.name`, one for each number of network calls in config.eval.steps, of
    config.eval.train_samples examples in the configured features, from the same noise each time. The labels of a
    network that has them are drawn with the frequencies of its data.

    Only the first process gets values. InputError for missing features or data; score raises it for a network whose
    samples cannot be measured.
    """
    extract = reference.extractor(config.data, config.eval.features, None, None)
    target = reference.of_data(config.data, extract).statistics()
    sampler, shape = sampling.Sampler(build.objective(config)), data.shape(config.data)
    counts = classes.of_run(config, build.source(config).identity()).counts
    drawn = generate.draw_labels(config.seed, config.eval.train_samples, counts) if counts else None

    def score(net: BoundNet) -> dict[str, float]:
        found = {}
        for calls in config.eval.steps:
            plan = generate.Plan(shape, sampler, calls, config.seed, config.eval.batch_size, drawn)
            sample = Sample.of(generate.batches(net, plan, config.eval.train_samples), extract)
            # If the first process failed alone, the others would wait for it in the next samples.
            distance = processes.on_first(lambda sample=sample: float(target.gaussian.distance(sample.gaussian())))
            if distance is not None:
                found[Distance(calls, extract.name, config.eval.train_samples).name] = distance
        return found

    return score
