"""Quality against steps: python -m eval.fid_sweep --workdir=DIR[,DIR,...] --steps=1,2,4,10,50,100.

Restores each run from its workdir alone, samples with each number of steps from the same noise, and writes
DIR/eval/fid.jsonl, fid_table.md, fid_curve.png and samples/. What is in fid.jsonl is not measured again.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from absl import flags

from eval import features, measure, plots, reference, results
from eval.background import Background
from eval.progress import Progress
from sgflow_jax import build, cli, data, figures, fingerprint, generate, processes, sampling
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED, InputError
from sgflow_jax.models import BoundNet

SHOWN_IMAGES = (8, 8)  # rows and columns of a picture of samples
SHOWN_POINTS = 4096
STEPS = (1, 2, 4, 10, 50, 100)  # those of them that the objective is trained for, unless asked otherwise


class Request(NamedTuple):
    """What to measure. None takes what the run has: eval.num_samples, eval.features, data.data_dir, its own method,
    its newest checkpoint.

    features, weights, resize: see `features.make`. reference: a file of `eval.reference`, in place of the run's data.
    parameters: "ema" or "raw". grid: of `sampling.GRIDS`.
    """

    steps: tuple[int, ...] | None = None
    num_samples: int | None = None
    features: str | None = None
    weights: str | None = None
    resize: str | None = None
    reference: str | None = None
    method: str | None = None
    grid: str = "uniform"
    seeds: tuple[int, ...] = (0,)
    checkpoints: tuple[int, ...] | None = None
    parameters: str = "ema"
    data_dir: str | None = None


class _Checkpoint(NamedTuple):
    """One checkpoint of a workdir."""

    workdir: str
    config: ml_collections.ConfigDict
    step: int
    network: str
    method: str
    steps: tuple[int, ...]
    num_samples: int


def sweep(workdirs: Sequence[str], request: Request) -> dict[str, list[results.Row]]:
    """Measures what fid.jsonl lacks, draws table and curve anew, and returns the rows asked for of each workdir (on the
    first process; the others get none).

    InputError, before anything is written, for what cannot be measured; after everything else was measured, for
    networks whose samples cannot be.
    """
    workdirs = tuple(dict.fromkeys(workdirs))
    checkpoints = [checkpoint for workdir in workdirs for checkpoint in _checkpoints(workdir, request)]
    extract, target = _target([checkpoint.config for checkpoint in checkpoints], request)
    asked = [_identities(checkpoint, request, target.identity) for checkpoint in checkpoints]
    known = {workdir: {row.identity for row in results.read(workdir)} for workdir in workdirs}
    # The processes must agree, and one may see a file the other does not see yet.
    missing = processes.from_process(
        [
            [place for place, identity in enumerate(identities) if identity not in known[checkpoint.workdir]]
            for checkpoint, identities in zip(checkpoints, asked, strict=True)
        ]
    )
    faults = []
    if any(missing):
        todo = [[each[place] for place in places] for each, places in zip(asked, missing, strict=True)]
        faults = processes.from_process(_measure(list(zip(checkpoints, todo, strict=True)), extract, target))
    found = processes.on_first(lambda: _summarise(workdirs))
    if faults:
        raise InputError("; ".join(faults))
    if found is None:
        return {}
    wanted = {(point.workdir, identity) for point, each in zip(checkpoints, asked, strict=True) for identity in each}
    return {workdir: [row for row in rows if (workdir, row.identity) in wanted] for workdir, rows in found.items()}


def _summarise(workdirs: Sequence[str]) -> dict[str, list[results.Row]]:
    """Draws table and curve of each run anew, and returns its rows."""
    found = {workdir: results.read(workdir) for workdir in workdirs}
    for workdir, rows in found.items():
        if rows:
            _write_summary(paths.evaluation(workdir), rows)
    return found


def _summary_files(folder: Path) -> tuple[Path, Path]:
    return folder / "fid_table.md", folder / "fid_curve.png"


def _write_summary(folder: Path, rows: list[results.Row], runs: Sequence[str] = ()) -> None:
    """Writes table and curve. runs: what the run of each row is called, its objective by default."""
    table, curve = _summary_files(folder)
    paths.write_atomically(table, results.table(rows, runs))
    paths.write_atomically(curve, plots.png(plots.distance_curve(rows, runs)))


def _checkpoints(workdir: str, request: Request) -> list[_Checkpoint]:
    """Those asked for, all found to be there; InputError for what cannot be measured."""
    found = []
    if request.num_samples is not None and not 2 <= request.num_samples <= MAX_SAMPLES:
        raise InputError(f"--num_samples={request.num_samples}: use 2 to {MAX_SAMPLES}, a distance needs a covariance")
    for step in request.checkpoints or (None,):
        # The newest for one process may not be there yet for another.
        step = processes.from_process(build.recall(workdir, step)[1])
        net, config, _ = build.restore(workdir, step, ema=request.parameters == "ema")
        network = fingerprint.of_arrays(*jax.tree.leaves(net.params))
        num_samples = config.eval.num_samples if request.num_samples is None else request.num_samples
        objective = build.objective(config)
        method = sampling.method_of(objective, request.method)
        steps = sampling.choose_calls(objective, method, request.steps, STEPS, request.grid)
        found.append(_Checkpoint(workdir, config, step, network, method, steps, num_samples))
    return found


def _target(configs: list[ml_collections.ConfigDict], request: Request) -> tuple[features.Features, reference.Target]:
    """What all runs are measured with and against. InputError if they cannot be measured alike."""
    config = configs[0].copy_and_resolve_references()
    name = request.features or config.eval.features
    _agree({other.data.name for other in configs}, "are of different data", "measure them apart")
    if request.features is None:
        _agree({other.eval.features for other in configs}, "are for different features", "choose with --features")
    if request.num_samples is None:
        counts = {other.eval.num_samples for other in configs}
        _agree(counts, "are for different numbers of samples", "choose with --num_samples")
    if request.data_dir is not None:
        config.data.data_dir = request.data_dir
    elif request.reference is None and len({other.data.data_dir for other in configs}) > 1:
        places = {other.data.data_dir: other for other in configs}.values()
        prints = {fingerprint.of_examples(build.source(other)) for other in places}
        _agree(prints, f"hold different data called {config.data.name}, by fingerprint", "measure them apart")
    extract = reference.extractor(config, name, request.weights, request.resize)
    if request.reference is not None:
        return extract, reference.of_file(request.reference, config, extract)
    return extract, reference.of_data(config, extract)


def _agree(values: set, fault: str, remedy: str) -> None:
    if len(values) > 1:
        raise InputError(f"the workdirs {fault} ({', '.join(sorted(map(str, values)))}): {remedy}")


def _identities(
    checkpoint: _Checkpoint, request: Request, against: results.ReferenceIdentity
) -> list[results.Identity]:
    """One for each seed and number of steps."""
    return [
        results.Identity(
            objective=checkpoint.config.objective.name,
            checkpoint_step=checkpoint.step,
            parameters=request.parameters,
            network=checkpoint.network,
            steps=steps,
            method=checkpoint.method,
            grid=request.grid,
            num_samples=checkpoint.num_samples,
            seed=seed,
            reference=against,
        )
        for seed in request.seeds
        for steps in checkpoint.steps
    ]


def _measure(
    todo: list[tuple[_Checkpoint, list[results.Identity]]], extract: features.Features, target: reference.Target
) -> list[str]:
    """Scores and writes each row while the next is sampled, so that a sweep that is killed goes on where it was.
    Returns, on the first process, what was wrong with the networks that cannot be measured."""

    def check_writable():  # now, not after the work
        for checkpoint, identities in todo:
            files = [results.examples_file(checkpoint.workdir, identity) for identity in identities]
            paths.check_writable(*files, *_summary_files(paths.evaluation(checkpoint.workdir)))
            results.check_writable(checkpoint.workdir)

    processes.on_first(check_writable)
    statistics = target.statistics()
    faults = []
    rows = [identity for _, identities in todo for identity in identities]

    def fail(workdir, identity, error):
        faults.append(f"{workdir}, {figures.in_steps(identity.steps)}: {error}")

    def finish(workdir, identity, sample, first):
        try:
            scores = measure.scores(sample, statistics)
        except InputError as error:
            fail(workdir, identity, error)
        else:
            _keep(workdir, identity, scores, first, progress)

    with Progress(rows) as progress, Background(limit=1) as scoring:
        for checkpoint, identities in todo:
            if not identities:
                continue
            workdir = checkpoint.workdir
            net, _, _ = build.restore(workdir, checkpoint.step, ema=identities[0].parameters == "ema")
            for identity in identities:
                try:
                    rest = finish, workdir, identity, *_sample(net, checkpoint.config, identity, extract, progress)
                except InputError as error:
                    rest = fail, workdir, identity, error
                processes.on_first(functools.partial(scoring.submit, *rest))
        processes.on_first(scoring.wait)
    return faults


def _sample(
    net: BoundNet,
    config: ml_collections.ConfigDict,
    identity: results.Identity,
    extract: features.Features,
    progress: Progress,
) -> tuple[measure.Sample, np.ndarray]:
    """One pass over generated examples, and the first of them."""
    shape, path = data.shape(config.data.name), config.objective.interpolant
    size = config.eval.batch_size
    plan = generate.Plan(shape, identity.steps, identity.method, identity.seed, size, path, identity.grid)
    limit = SHOWN_POINTS if len(shape) == 1 else SHOWN_IMAGES[0] * SHOWN_IMAGES[1]
    shown = []

    def watched() -> Iterator[np.ndarray]:
        for batch in generate.batches(net, plan, identity.num_samples):
            shown.append(batch[: limit - sum(map(len, shown))])
            yield batch
            progress.advance(len(batch) * identity.steps)

    return measure.Sample.of(watched(), extract), np.concatenate(shown)


def _keep(
    workdir: str, identity: results.Identity, scores: results.Scores, examples: np.ndarray, progress: Progress
) -> None:
    """Writes a row, after its first examples, and says so."""
    _write_examples(workdir, identity, examples)
    row = results.Row(identity, scores)
    results.append(workdir, row)
    progress.row(workdir, row)


def _write_examples(workdir: str, identity: results.Identity, examples: np.ndarray) -> None:
    """The first examples, as an array and as a picture."""
    file = results.examples_file(workdir, identity)
    with contextlib.suppress(InputError):  # missing, or damaged
        (kept,) = paths.read_arrays(file, "examples")
        if kept.shape[1:] == examples.shape[1:] and len(kept) >= len(examples):  # of a row of more samples
            return
    paths.write_arrays(file, {"examples": examples})
    if examples.ndim == 2:
        picture = figures.point_panels({"": examples})
    else:
        width = SHOWN_IMAGES[1]
        picture = figures.image_grid([examples[i : i + width] for i in range(0, len(examples), width)])
    paths.write_atomically(file.with_suffix(".png"), figures.png(picture))


def define_flags() -> None:
    """Only for the program: two modules with the same flags could not be imported together otherwise."""
    flags.DEFINE_list("workdir", None, "Directories of trained runs of the same data.")
    flags.DEFINE_alias("workdirs", "workdir")
    flags.DEFINE_list(
        "steps", None, "Numbers of steps (network calls); of 1,2,4,10,50,100 what the run can by default."
    )
    flags.DEFINE_integer("num_samples", None, "Generated examples; the run's eval.num_samples by default.")
    features.define_flags()
    cli.define_path("reference", None, "A file of eval.reference; by default the run's training data.")
    flags.DEFINE_string("method", None, "One of flow_map, euler, heun and consistency; the objective's own by default.")
    flags.DEFINE_enum("grid", "uniform", sampling.GRIDS, "Times of the steps.")
    flags.DEFINE_list("checkpoint", None, "Steps of checkpoints; the newest by default.")
    flags.DEFINE_enum("parameters", "ema", ["ema", "raw"], "The averaged parameters, or the last ones.")
    cli.define_path("data_dir", None, "Where the reference data lie; as in training by default.")
    flags.DEFINE_list("seeds", ["0"], "Seeds of the noise.")
    flags.DEFINE_alias("seed", "seeds")
    cli.define_path("out", None, "Directory for one table and curve of all workdirs.")


def main(_):
    given = flags.FLAGS
    workdirs = cli.directories("workdir", given.workdir)
    request = Request(
        steps=cli.integers("steps", given.steps, least=1),
        num_samples=given.num_samples,
        features=given.features,
        weights=given.inception_weights,
        resize=given.resize,
        reference=given.reference,
        method=given.method,
        grid=given.grid,
        seeds=cli.integers("seeds", given.seeds, most=MAX_SEED),
        checkpoints=cli.integers("checkpoint", given.checkpoint, least=1),
        parameters=given.parameters,
        data_dir=given.data_dir,
    )
    cli.start_jax()
    if given.out:
        processes.on_first(lambda: paths.check_writable(*_summary_files(Path(given.out))))
    workdirs = processes.from_process(
        processes.on_first(lambda: [results.own(workdir, given.out) for workdir in workdirs])
    )
    found = sweep(workdirs, request)
    for workdir, rows in found.items():
        print(workdir)
        for row in rows:
            print(f"  {results.describe(row)}")
    if given.out and found:
        labels = results.labels(list(found), [rows[0].identity.objective for rows in found.values()])
        tagged = [(label, row) for label, rows in zip(labels, found.values(), strict=True) for row in rows]
        _write_summary(Path(given.out), [row for _, row in tagged], [label for label, _ in tagged])


if __name__ == "__main__":
    define_flags()
    cli.run(main)
