"""Measures the rows of a sweep: samples each network, scores the features of the samples, and writes the results."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import ml_collections
import numpy as np

from eval import features, reference
from eval.scores import measure, results, summary
from eval.scores.background import Background
from eval.scores.progress import Sampling
from sgflow_jax import __version__, data, generate
from sgflow_jax.devices import processes
from sgflow_jax.display import figures
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.run import layout
from sgflow_jax.run.access import Opened
from sgflow_jax.sampling import Sampler


@dataclasses.dataclass(eq=False)
class Checkpoint:
    """One checkpoint of a run, read once. network: the fingerprint of its parameters. calls: numbers of network calls.
    num_samples: per distance. class_counts: training examples of each class that the network knows. opened: with the
    parameters, on the host; None once they are no longer needed."""

    workdir: str
    config: ml_collections.ConfigDict
    step: int
    network: str
    sampler: Sampler
    calls: tuple[int, ...]
    num_samples: int
    class_counts: tuple[int, ...]
    opened: Opened | None

    def take_net(self) -> BoundNet:
        """Copies the network to all devices and releases the host's copy."""
        opened, self.opened = self.opened, None
        return opened.net()


def measure_all(
    todo: list[tuple[Checkpoint, list[results.Identity]]], extract: features.Features, target: reference.Target
) -> list[str]:
    """Scores and writes each row while the next is sampled, so that a killed sweep can continue. Returns, on the first
    process, one sentence per failure."""

    def check_writable():  # now, not after the work
        for checkpoint, identities in todo:
            folder = layout.evaluation(checkpoint.workdir)
            files = [results.examples_file(checkpoint.workdir, identity) for identity in identities]
            disk.check_writable(*files, *summary.files(folder))
            results.check_writable(checkpoint.workdir)

    processes.on_first(check_writable)
    statistics = target.statistics()
    faults = []

    def fail(place: str, error: InputError):
        faults.append(f"{place}: {error}")

    def finish(checkpoint, identity, sample, examples, rest, unwritten):
        """Scores and writes a row. rest: how many rows of the checkpoint are lost if this one cannot be written."""
        place = f"{checkpoint.workdir}, {_how(identity)}"
        try:
            scores = measure.scores(sample, statistics)
        except InputError as error:
            return fail(place, error)
        if unwritten:
            return None
        row = results.Row(identity, scores, results.Origin(__version__))
        try:
            _write(checkpoint.workdir, row, examples)
        except InputError as error:
            unwritten.append(identity)
            lost = f"{checkpoint.workdir}, step {checkpoint.step}: {rest} row{'s' * (rest > 1)} not measured"
            return fail(lost, error)
        shown = results.plus_minus(scores.value, scores.value_error)
        return progress.row(place, identity.num_samples, identity.calls, shown)

    def measure_checkpoint(checkpoint: Checkpoint, identities: list[results.Identity]):
        net = checkpoint.take_net()
        unwritten = []  # after one row that cannot be written, the rest of the checkpoint is skipped
        for number, identity in enumerate(identities):
            if processes.from_process(bool(unwritten)):
                break
            progress.begin(f"{Path(checkpoint.workdir).name}, {_how(identity)}")
            try:
                made = _sample(net, checkpoint, identity, extract, progress)
            except InputError as error:
                submit(fail, f"{checkpoint.workdir}, {_how(identity)}", error)
            else:
                submit(finish, checkpoint, identity, *made, len(identities) - number, unwritten)

    work = [(identity.num_samples, identity.calls) for _, identities in todo for identity in identities]
    with Sampling(work) as progress, Background(limit=1) as scoring:
        submit = lambda *call: processes.on_first(functools.partial(scoring.submit, *call))  # noqa: E731
        for checkpoint, identities in todo:
            measure_checkpoint(checkpoint, identities)
        processes.on_first(scoring.wait)
    return faults


def _how(identity: results.Identity) -> str:
    """The row in a few words."""
    return ", ".join(filter(None, [figures.in_steps(identity.calls), identity.guided]))


def _sample(
    net: BoundNet, checkpoint: Checkpoint, identity: results.Identity, extract: features.Features, progress: Sampling
) -> tuple[measure.Sample, np.ndarray]:
    """The features of one pass over generated examples, and the first of the examples."""
    config = checkpoint.config
    shape = data.shape(config.data)
    drawn = None
    if checkpoint.class_counts:
        drawn = generate.draw_labels(identity.seed, identity.num_samples, checkpoint.class_counts)
    plan = generate.Plan(shape, checkpoint.sampler, identity.calls, identity.seed, config.eval.batch_size, drawn)
    limit = summary.KEPT[len(shape)]
    first = []

    def batches() -> Iterator[np.ndarray]:
        for batch in generate.batches(net, plan, identity.num_samples):
            first.append(batch[: limit - sum(map(len, first))])
            yield batch
            progress.advance(len(batch), identity.calls)

    return measure.Sample.of(batches(), extract), np.concatenate(first)


def _write(workdir: str, row: results.Row, examples: np.ndarray) -> None:
    """Writes a row, after its first examples."""
    summary.write_examples(results.examples_file(workdir, row.identity), examples, row.identity.reference.data)
    results.append(workdir, row)
