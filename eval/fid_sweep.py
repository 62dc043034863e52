"""Quality against steps: measures runs with several numbers of sampling steps.

    python -m eval.fid_sweep --workdir=runs/quickstart --steps=1,2,4,10
    python -m eval.fid_sweep --workdirs=runs/a,runs/b --steps=1,4,50 --seeds=0,1,2 --out=runs/curve

Restores each run from its workdir alone, samples with each number of steps from the same noise, and writes
DIR/eval/fid.jsonl, fid_table.md, fid_curve.png, samples.png and samples/. What is in fid.jsonl is not measured again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
from absl import flags

from eval import features, reference
from eval.scores import labels, results, summary
from eval.scores.measuring import Checkpoint, measure_all
from eval.scores.progress import say
from sgflow_jax import build, cli, sampling
from sgflow_jax.data import fingerprint
from sgflow_jax.devices import processes
from sgflow_jax.files import disk
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED, InputError
from sgflow_jax.run import layout

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


class Swept(NamedTuple):
    """What a sweep found. rows: those asked for, by workdir, on the first process; the others get none. configs: of
    the runs. faults: what could not be measured, a sentence each. files: what was drawn, by workdir."""

    rows: dict[str, list[results.Row]]
    configs: dict[str, labels.Config]
    faults: list[str]
    files: dict[str, list[Path]]


def sweep(workdirs: Sequence[str], request: Request) -> dict[str, list[results.Row]]:
    """As `attempt`: the rows asked for. InputError, after everything else was measured, for what could not be."""
    found = attempt(workdirs, request)
    if found.faults:
        raise InputError("; ".join(found.faults))
    return found.rows


def attempt(workdirs: Sequence[str], request: Request) -> Swept:
    """Measures what fid.jsonl lacks, and draws table and curve anew.

    InputError, before anything is written, for what cannot be measured. What fails later costs its own rows only: a
    checkpoint that is gone (training may remove it meanwhile), a network that was trained again or gives no finite
    samples, a run whose files cannot be read or written.
    """
    workdirs = tuple(dict.fromkeys(workdirs))
    say(f"reading {', '.join(workdirs)}")
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
    left, total = sum(map(len, missing)), sum(map(len, asked))
    if left < total:
        say(f"{total - left} of {total} rows are known")
    if left:
        todo = [[each[place] for place in places] for each, places in zip(asked, missing, strict=True)]
        faults = measure_all(list(zip(checkpoints, todo, strict=True)), extract, target)
    rows, files = {}, {}
    if jax.process_index() == 0:
        for workdir in workdirs:
            wanted = {i for c, each in zip(checkpoints, asked, strict=True) if c.workdir == workdir for i in each}
            try:
                every = results.read(workdir)
                rows[workdir] = [row for row in every if row.identity in wanted]
                files[workdir] = _draw(workdir, every, rows[workdir])
            except InputError as error:
                faults.append(f"{workdir} has no new table and curve ({error})")
    configs = {checkpoint.workdir: checkpoint.config.to_dict() for checkpoint in checkpoints}
    return Swept(rows, configs, processes.from_process(faults), files)


def _draw(workdir: str, every: list[results.Row], wanted: list[results.Row]) -> list[Path]:
    """Draws table and curve of all rows of a run anew, and a picture of those wanted; where they are."""
    files = summary.write(layout.evaluation(workdir), every) if every else []
    if wanted and (picture := summary.picture(workdir, wanted)):
        files.append(picture)
    return files


def _checkpoints(workdir: str, request: Request) -> list[Checkpoint]:
    """Those asked for, all found to be there; InputError for what cannot be measured."""
    found = []
    if request.num_samples is not None and not 2 <= request.num_samples <= MAX_SAMPLES:
        raise InputError(f"--num_samples={request.num_samples}: use 2 to {MAX_SAMPLES}, a distance needs a covariance")
    for step in request.checkpoints or (None,):
        net, config, step = build.restore(workdir, step, ema=request.parameters == "ema")
        network = fingerprint.of_arrays(*jax.tree.leaves(net.params))
        num_samples = config.eval.num_samples if request.num_samples is None else request.num_samples
        objective = build.objective(config)
        method = sampling.method_of(objective, request.method)
        steps = sampling.choose_calls(objective, method, request.steps, STEPS, request.grid)
        found.append(Checkpoint(workdir, config, step, network, method, steps, num_samples))
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


def _identities(checkpoint: Checkpoint, request: Request, against: results.ReferenceIdentity) -> list[results.Identity]:
    """One for each seed and number of steps."""
    return [
        results.Identity(
            objective=checkpoint.config.objective.name,
            checkpoint_step=checkpoint.step,
            parameters=request.parameters,
            network=checkpoint.network,
            network_precision=checkpoint.config.model.precision,
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
        processes.on_first(lambda: disk.check_writable(*summary.files(Path(given.out))))
    workdirs = processes.from_process(
        processes.on_first(lambda: [results.own(workdir, given.out) for workdir in workdirs])
    )
    found = attempt(workdirs, request)
    faults = list(found.faults)
    if any(found.rows.values()):
        try:
            _tell(found, given.out)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("; ".join(faults))


def _tell(found: Swept, out: str | None) -> None:
    """One table of all runs in the terminal, and where the files are; with `out`, a table and a curve there too."""
    rows = {workdir: rows for workdir, rows in found.rows.items() if rows}
    names = labels.labels(
        list(rows),
        [each[0].identity.objective for each in rows.values()],
        [found.configs[workdir] for workdir in rows],
    )
    tagged = [(name, row) for name, each in zip(names, rows.values(), strict=True) for row in each]
    say(f"\n{summary.screen(tagged)}\n")
    drawn = {workdir: files for workdir, files in found.files.items() if files}
    for workdir, files in drawn.items():
        several = f"wrote {layout.evaluation(workdir)}: {', '.join(file.name for file in files)}"
        say(several if len(drawn) > 1 else "\n".join(f"wrote {file}" for file in files))
    if out:
        files = summary.write(Path(out), [row for _, row in tagged], [name for name, _ in tagged])
        say("\n".join(f"wrote {file}" for file in files))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
