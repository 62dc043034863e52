"""Quality against steps: measures runs with several numbers of sampling steps.

    python -m eval.fid_sweep --workdir=runs/quickstart --steps=1,2,4,10
    python -m eval.fid_sweep --workdirs=runs/a,runs/b --steps=1,4,50 --seeds=0,1,2 --out=runs/curve

Needs nothing but the workdirs. Samples from the same noise in each number of steps, and writes DIR/eval/fid.jsonl,
fid_table.md, fid_curve.png, samples.png and samples/. Skips rows that are already in fid.jsonl. An installed package
calls this command sgflow-sweep.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
from absl import flags

from eval import features, reference
from eval.scores import class_names, labels, own_place, results, summary, training_data
from eval.scores.measuring import Checkpoint, measure_all
from eval.scores.progress import say
from sgflow_jax import build, cli, data, run_sampler, sampling
from sgflow_jax.devices import processes
from sgflow_jax.files import disk
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED, InputError
from sgflow_jax.run import access, layout

CALLS = (*sampling.CALLS, 50, 100)  # by default, as far as the objective allows them


class Request(NamedTuple):
    """What to measure. None: the run's own eval.num_samples, eval.features, data.data_dir and method, its newest
    checkpoint, and the default numbers of calls.

    calls: numbers of network calls. features, weights: see `features.make`. resize: its rules, each for rows of its
    own. reference: a file for `reference.of_file`, in place of the run's data. method, grid, guidance: see
    `sampling.Sampler`. parameters: see `access.open`.
    """

    calls: tuple[int, ...] | None = None
    num_samples: int | None = None
    features: str | None = None
    weights: str | None = None
    resize: tuple[str | None, ...] = (None,)
    reference: str | None = None
    method: str | None = None
    grid: str = "uniform"
    seeds: tuple[int, ...] = (0,)
    checkpoints: tuple[int, ...] | None = None
    parameters: str = "ema"
    data_dir: str | None = None
    guidance: Guidance = Guidance()


class Swept(NamedTuple):
    """The result of a sweep. rows: those asked for, by workdir, on the first process only. configs: by workdir. faults:
    a sentence for each failure. files: tables and pictures, by workdir."""

    rows: dict[str, list[results.Row]]
    configs: dict[str, labels.Config]
    faults: list[str]
    files: dict[str, list[Path]]


def sweep(workdirs: Sequence[str], request: Request) -> dict[str, list[results.Row]]:
    """As `attempt`, but returns only the rows asked for; InputError, after measuring the rest, for failures."""
    found = attempt(workdirs, request)
    if found.faults:
        raise InputError("; ".join(found.faults))
    return found.rows


def attempt(workdirs: Sequence[str], request: Request) -> Swept:
    """Measures the rows that fid.jsonl lacks, and draws table and curve anew.

    Reads each checkpoint once, so training may remove or replace it during the sweep. InputError, before anything is
    written, for an impossible request. A later failure costs its own rows only: a network that produces NaN, a run
    whose files cannot be read or written.
    """
    workdirs = tuple(dict.fromkeys(workdirs))
    say(f"reading {', '.join(workdirs)}")
    checkpoints = [checkpoint for workdir in workdirs for checkpoint in _checkpoints(workdir, request)]
    targets = _targets([checkpoint.config for checkpoint in checkpoints], request)
    asked = [_identities(checkpoint, request, targets) for checkpoint in checkpoints]
    known = {workdir: {row.identity for row in results.read(workdir)} for workdir in workdirs}
    # The processes must agree, and one may see a file before another does.
    missing = processes.from_process(
        [
            [place for place, identity in enumerate(identities) if identity not in known[checkpoint.workdir]]
            for checkpoint, identities in zip(checkpoints, asked, strict=True)
        ]
    )
    named = {checkpoint.workdir: class_names.of_data(checkpoint.opened) for checkpoint in checkpoints}
    trained_on = {checkpoint.workdir: checkpoint.opened.data for checkpoint in checkpoints}
    todo = []
    for checkpoint, identities, places in zip(checkpoints, asked, missing, strict=True):
        if places:
            todo.append((checkpoint, [identities[place] for place in places]))
        else:
            checkpoint.opened = None
    left, total = sum(map(len, missing)), sum(map(len, asked))
    if left < total:
        say(f"{total - left} of {total} rows were measured before")
    faults = measure_all(todo, targets) if todo else []
    if targets[0].features.classify:
        faults += processes.on_first(lambda: _name_classes(named)) or []
    rows, files = {}, {}
    if jax.process_index() == 0:
        for workdir in workdirs:
            wanted = {i for c, each in zip(checkpoints, asked, strict=True) if c.workdir == workdir for i in each}
            try:
                every = results.read(workdir)
                rows[workdir] = [row for row in every if row.identity in wanted]
                if every:
                    training_data.write(workdir, trained_on[workdir])
                files[workdir] = _draw(workdir, every, rows[workdir])
            except InputError as error:
                faults.append(f"{workdir} has no new table and curve ({error})")
    configs = {checkpoint.workdir: checkpoint.config.to_dict() for checkpoint in checkpoints}
    return Swept(rows, configs, processes.from_process(faults), files)


def _name_classes(named: dict[str, tuple[str, ...]]) -> list[str]:
    """Writes the names of the classes beside the rows of each run; returns a sentence for each failure."""
    faults = []
    for workdir, names in named.items():
        try:
            class_names.write(workdir, names)
        except InputError as error:
            faults.append(f"the classes of {workdir} are not named ({error})")
    return faults


def _draw(workdir: str, every: list[results.Row], wanted: list[results.Row]) -> list[Path]:
    """Draws table and curve of all rows of a run, and a picture of the wanted rows; returns the paths."""
    files = summary.write(layout.evaluation(workdir), every) if every else []
    if wanted and (picture := summary.picture(workdir, wanted)):
        files.append(picture)
    return files


def _checkpoints(workdir: str, request: Request) -> list[Checkpoint]:
    """Reads the checkpoints asked for, each once. InputError for an impossible request."""
    found = []
    if request.num_samples is not None and not 2 <= request.num_samples <= MAX_SAMPLES:
        raise InputError(f"--num_samples={request.num_samples}: use 2 to {MAX_SAMPLES}, a distance needs a covariance")
    for step in request.checkpoints or (None,):
        opened = access.open(workdir, step, request.parameters)
        config = opened.config
        num_samples = config.eval.num_samples if request.num_samples is None else request.num_samples
        sampler = run_sampler.make(config, request.method, request.grid, request.guidance)
        calls, counts = sampler.choose(request.calls, CALLS), opened.classes.counts
        found.append(
            Checkpoint(workdir, config, opened.step, opened.fingerprint, sampler, calls, num_samples, counts, opened)
        )
    for remark in dict.fromkeys(line for each in found for line in run_sampler.remarks(each.config, each.sampler)):
        say(remark)
    return found


def _targets(configs: list[ml_collections.ConfigDict], request: Request) -> list[reference.Target]:
    """The reference common to all runs, by each rule of request.resize. InputError if the runs cannot share it."""
    config = configs[0].copy_and_resolve_references()
    name = request.features or config.eval.features
    _agree({data.title(other.data) for other in configs}, "are of different data", "measure them separately")
    if request.features is None:
        _agree({other.eval.features for other in configs}, "are for different features", "choose with --features")
    if request.num_samples is None:
        counts = {other.eval.num_samples for other in configs}
        _agree(counts, "are for different numbers of samples", "choose with --num_samples")
    if request.data_dir is not None:
        config.data["dir" if config.data.dir else "data_dir"] = request.data_dir
    elif request.reference is None and len(places := {data.request(other.data): other for other in configs}) > 1:
        prints = {build.source(other).fingerprint for other in places.values()}
        _agree(
            prints, f"hold different data called {data.title(config.data)}, by fingerprint", "measure them separately"
        )
    kinds = [reference.extractor(config.data, name, request.weights, rule) for rule in request.resize]
    if request.reference is not None:
        shape = data.shape(config.data)
        return [reference.of_file(request.reference, extract, shape, config.data) for extract in kinds]
    return [reference.of_data(config.data, extract) for extract in kinds]


def _agree(values: set, fault: str, remedy: str) -> None:
    if len(values) > 1:
        raise InputError(f"the workdirs {fault} ({', '.join(sorted(map(str, values)))}): {remedy}")


def _identities(
    checkpoint: Checkpoint, request: Request, targets: Sequence[reference.Target]
) -> list[results.Identity]:
    """One for each seed, number of calls and target; those that share samples follow each other."""
    return [
        results.Identity(
            objective=checkpoint.config.objective.name,
            checkpoint_step=checkpoint.step,
            parameters=request.parameters,
            network=checkpoint.network,
            network_precision=checkpoint.config.model.precision,
            calls=calls,
            method=checkpoint.sampler.method,
            grid=checkpoint.sampler.grid,
            num_samples=checkpoint.num_samples,
            seed=seed,
            reference=target.identity,
            guidance=request.guidance.weight,
            guidance_interval=run_sampler.interval(request.guidance) if request.guidance.on else "",
            labels="data" if checkpoint.class_counts else "",
        )
        for seed in request.seeds
        for calls in checkpoint.calls
        for target in targets
    ]


def define_flags() -> None:
    flags.DEFINE_list("workdir", None, "Directories of trained runs of the same data.")
    flags.DEFINE_alias("workdirs", "workdir")
    every = ",".join(map(str, CALLS))
    flags.DEFINE_list("steps", None, f"Numbers of steps (network calls); by default those of {every} the run can make.")
    flags.DEFINE_integer("num_samples", None, "Generated examples; the run's eval.num_samples by default.")
    features.define_flags()
    cli.define_path(
        "reference", None, "A file of eval.reference, or of published mu and sigma; by default the run's training data."
    )
    flags.DEFINE_string("method", None, f"One of {', '.join(sampling.METHODS)}; the objective's own by default.")
    cli.define_grid()
    cli.define_guidance()
    flags.DEFINE_list("checkpoint", None, "Steps of checkpoints; the newest by default.")
    cli.define_parameters()
    cli.define_path(
        "data_dir", None, "Where the reference data are now, as data.data_dir or data.dir; as in training by default."
    )
    flags.DEFINE_list("seeds", ["0"], "Seeds of the noise.")
    flags.DEFINE_alias("seed", "seeds")
    cli.define_path("out", None, "Directory for one table and curve of all workdirs.")


def main(_):
    given = flags.FLAGS
    workdirs = cli.directories("workdir", given.workdir)
    request = Request(
        calls=cli.integers("steps", given.steps, least=1),
        num_samples=given.num_samples,
        features=given.features,
        weights=given.inception_weights,
        resize=features.rules(given.resize),
        reference=given.reference,
        method=given.method,
        grid=cli.grid(),
        seeds=cli.integers("seeds", given.seeds, most=MAX_SEED),
        checkpoints=cli.integers("checkpoint", given.checkpoint, least=1),
        parameters=given.parameters,
        data_dir=given.data_dir,
        guidance=cli.guidance(),
    )
    cli.start_jax()
    if given.out:
        processes.on_first(lambda: disk.check_writable(*summary.files(Path(given.out))))
    workdirs = processes.from_first(lambda: [own_place.own(workdir, given.out) for workdir in workdirs])
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
    """Prints one table of all runs and the paths of the files; with `out`, writes a table and a curve there too."""
    rows = {workdir: rows for workdir, rows in found.rows.items() if rows}
    facts = (
        list(rows),
        [each[0].identity.objective for each in rows.values()],
        [labels.as_trained(found.configs[workdir], training_data.read(workdir)) for workdir in rows],
    )
    runs, lines = (
        [name for name, each in zip(names, rows.values(), strict=True) for _ in each]
        for names in (labels.labels(*facts), labels.group_names(*facts))
    )
    every = [row for each in rows.values() for row in each]
    say(f"\n{summary.screen(list(zip(runs, every, strict=True)))}\n")
    drawn = {workdir: files for workdir, files in found.files.items() if files}
    for workdir, files in drawn.items():
        several = f"wrote {layout.evaluation(workdir)}: {', '.join(file.name for file in files)}"
        say(several if len(drawn) > 1 else "\n".join(f"wrote {file}" for file in files))
    if out:
        files = summary.write(Path(out), every, runs, lines)
        say("\n".join(f"wrote {file}" for file in files))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
