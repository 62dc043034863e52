"""Measures the rows of a sweep: samples of each network, their features, scores, and what is kept of them."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from eval import features, reference
from eval.scores import measure, results, summary
from eval.scores.background import Background
from eval.scores.progress import Sampling
from sgflow_jax import build, data, generate
from sgflow_jax.data import fingerprint
from sgflow_jax.devices import processes
from sgflow_jax.display import figures
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.run import layout


class Checkpoint(NamedTuple):
    """One checkpoint of a run. network: the fingerprint of its parameters. num_samples: for a distance."""

    workdir: str
    config: ml_collections.ConfigDict
    step: int
    network: str
    method: str
    steps: tuple[int, ...]
    num_samples: int


def measure_all(
    todo: list[tuple[Checkpoint, list[results.Identity]]], extract: features.Features, target: reference.Target
) -> list[str]:
    """Scores and writes each row while the next is sampled, so that a sweep that is killed goes on where it was.
    Returns, on the first process, what could not be measured."""

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

    def finish(checkpoint, identity, sample, first, rest, lost):
        """rest: how many rows of the checkpoint are lost, this one among them, if it cannot be written."""
        place = f"{checkpoint.workdir}, {figures.in_steps(identity.steps)}"
        try:
            scores = measure.scores(sample, statistics)
        except InputError as error:
            return fail(place, error)
        if lost:
            return None
        try:
            _keep(checkpoint.workdir, results.Row(identity, scores), first)
        except InputError as error:
            lost.append(identity)
            return fail(_rows_of(checkpoint, rest), error)
        shown = results.plus_minus(scores.value, scores.value_error)
        return progress.row(place, identity.num_samples, identity.steps, shown)

    work = [(identity.num_samples, identity.steps) for _, identities in todo for identity in identities]
    with Sampling(work) as progress, Background(limit=1) as scoring:
        submit = lambda *call: processes.on_first(functools.partial(scoring.submit, *call))  # noqa: E731
        for checkpoint, identities in todo:
            if not identities:
                continue
            try:
                net = _restored(checkpoint, identities[0].parameters)
            except InputError as error:
                submit(fail, _rows_of(checkpoint, len(identities)), error)
                continue
            lost = []  # what could not be written: the rest of the checkpoint is left alone
            for number, identity in enumerate(identities):
                if processes.from_process(bool(lost)):
                    break
                progress.begin(f"{Path(checkpoint.workdir).name}, {figures.in_steps(identity.steps)}")
                try:
                    made = _sample(net, checkpoint.config, identity, extract, progress)
                except InputError as error:
                    submit(fail, f"{checkpoint.workdir}, {figures.in_steps(identity.steps)}", error)
                else:
                    submit(finish, checkpoint, identity, *made, len(identities) - number, lost)
        processes.on_first(scoring.wait)
    return faults


def _rows_of(checkpoint: Checkpoint, count: int) -> str:
    return f"{checkpoint.workdir}, step {checkpoint.step}: {count} row{'s' * (count > 1)} not measured"


def _restored(checkpoint: Checkpoint, parameters: str) -> BoundNet:
    """The network that was found at the start; InputError, on all processes, if it is not there any more."""

    def restore() -> BoundNet:
        try:
            net, _, _ = build.restore(checkpoint.workdir, checkpoint.step, ema=parameters == "ema")
        except OSError as error:  # of the file system itself
            raise InputError(f"{checkpoint.workdir} cannot be read ({error.strerror}): sweep it again") from error
        if fingerprint.of_arrays(*jax.tree.leaves(net.params)) != checkpoint.network:
            raise InputError("the run was trained again meanwhile: sweep it again")
        return net

    # One process may fail alone; what finds the checkpoint fails on all.
    return processes.on_all(restore)


def _sample(
    net: BoundNet,
    config: ml_collections.ConfigDict,
    identity: results.Identity,
    extract: features.Features,
    progress: Sampling,
) -> tuple[measure.Sample, np.ndarray]:
    """One pass over generated examples, and the first of them."""
    shape, path = data.shape(config.data.name), config.objective.interpolant
    size = config.eval.batch_size
    plan = generate.Plan(shape, identity.steps, identity.method, identity.seed, size, path, identity.grid)
    limit = summary.KEPT[len(shape)]
    shown = []

    def watched() -> Iterator[np.ndarray]:
        for batch in generate.batches(net, plan, identity.num_samples):
            shown.append(batch[: limit - sum(map(len, shown))])
            yield batch
            progress.advance(len(batch), identity.steps)

    return measure.Sample.of(watched(), extract), np.concatenate(shown)


def _keep(workdir: str, row: results.Row, examples: np.ndarray) -> None:
    """Writes a row, after its first examples."""
    summary.write_examples(results.examples_file(workdir, row.identity), examples, row.identity.reference.data)
    results.append(workdir, row)
