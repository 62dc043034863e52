"""Measures the rows of a sweep: samples each network, scores the features of the samples, and writes the results."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from eval import reference
from eval.features.interface import Features
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
    todo: list[tuple[Checkpoint, list[results.Identity]]], targets: Sequence[reference.Target]
) -> list[str]:
    """Scores and writes each row while the next is sampled, so that a killed sweep can continue. Rows that follow each
    other and differ in their reference alone share their samples. Returns, on the first process, one sentence per
    failure.

    targets: of the rows; each finds its own by the reference in its identity.
    """

    def check_writable():  # now, not after the work
        for checkpoint, identities in todo:
            folder = layout.evaluation(checkpoint.workdir)
            files = [results.examples_file(checkpoint.workdir, identity) for identity in identities]
            disk.check_writable(*files, *summary.files(folder))
            results.check_writable(checkpoint.workdir)

    processes.on_first(check_writable)
    features = {target.identity: target.features for target in targets}
    statistics = {target.identity: target.statistics() for target in targets}
    faults = []

    def fail(place: str, error: InputError):
        faults.append(f"{place}: {error}")

    def finish(checkpoint, identity, sample, examples, calls, rest, unwritten):
        """Scores and writes a row. calls: see `Sampling`. rest: how many rows of the checkpoint are lost if this one
        cannot be written."""
        rule = f", {identity.reference.resize}" * (len(targets) > 1)
        place = f"{checkpoint.workdir}, {_how(identity)}{rule}"
        try:
            scores = measure.scores(sample, statistics[identity.reference])
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
        return progress.row(place, identity.num_samples, calls, shown)

    def measure_checkpoint(checkpoint: Checkpoint, identities: list[results.Identity]):
        net = checkpoint.take_net()
        unwritten = []  # after one row that cannot be written, the rest of the checkpoint is skipped
        rest = len(identities)
        for sharing in _sharing(identities):
            if processes.from_process(bool(unwritten)):
                break
            identity = sharing[0]
            progress.begin(f"{Path(checkpoint.workdir).name}, {_how(identity)}", len(sharing))
            kinds = [features[each.reference] for each in sharing]
            try:
                samples, examples = _sample(net, checkpoint, identity, kinds, progress)
            except InputError as error:
                submit(fail, f"{checkpoint.workdir}, {_how(identity)}", error)
                rest -= len(sharing)
            else:
                for each, sample, calls in zip(sharing, samples, _counted(sharing), strict=True):
                    submit(finish, checkpoint, each, sample, examples, calls, rest, unwritten)
                    rest -= 1

    work = [
        (identity.num_samples, calls)
        for _, identities in todo
        for sharing in _sharing(identities)
        for identity, calls in zip(sharing, _counted(sharing), strict=True)
    ]
    with Sampling(work) as progress, Background(limit=1) as scoring:
        submit = lambda *call: processes.on_first(functools.partial(scoring.submit, *call))  # noqa: E731
        for checkpoint, identities in todo:
            measure_checkpoint(checkpoint, identities)
        processes.on_first(scoring.wait)
    return faults


def _sharing(identities: list[results.Identity]) -> list[list[results.Identity]]:
    """The rows in order, grouped by their samples."""
    groups = itertools.groupby(identities, lambda identity: dataclasses.replace(identity, reference=None))
    return [list(group) for _, group in groups]


def _counted(sharing: list[results.Identity]) -> list[int]:
    """The network calls that each row of a group of `_sharing` adds: the first those of all."""
    return [sharing[0].calls] + [0] * (len(sharing) - 1)


def _how(identity: results.Identity) -> str:
    """The row in a few words."""
    return ", ".join(filter(None, [figures.in_steps(identity.calls), identity.guided]))


def _sample(
    net: BoundNet, checkpoint: Checkpoint, identity: results.Identity, kinds: Sequence[Features], progress: Sampling
) -> tuple[list[measure.Sample], np.ndarray]:
    """Each kind of features of generated examples, from one pass over these, and the first of the examples."""
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

    return measure.Sample.of_each(batches(), kinds), np.concatenate(first)


def _write(workdir: str, row: results.Row, examples: np.ndarray) -> None:
    """Writes a row, after its first examples."""
    summary.write_examples(results.examples_file(workdir, row.identity), examples, row.identity.reference.data)
    results.append(workdir, row)
