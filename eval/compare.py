"""Trains objectives on equal budgets and compares them: quality against steps, with errors over training seeds.

    python -m eval.compare --config=configs/cifar8.py --seeds=0,1 --budget=images:1e6 --out=runs/cifar8
    python -m eval.compare --config=configs/cifar10.py --objectives=sgflow,mean_flow --budget=seconds:600 --out=runs/c10

Trains each objective with each seed, sweeps its number of sampling steps, always from the same noise, and writes
DIR/comparison.md, comparison.json, curves.png, diagonals.png, learning.png and page/index.html. Give the same command
again after a kill, or with more seeds, objectives or another budget: it measures only the rows that DIR lacks. With
--so_far it shows those that DIR has.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags

from eval import features, reference, report
from eval.comparison import budget, floor, plots, summary, sweeps, training
from eval.figure import png
from eval.tables import store, variants
from sgflow_jax import cli, objectives, terminal
from sgflow_jax.config import automatic, flag
from sgflow_jax.config.check import check_config
from sgflow_jax.files import disk
from sgflow_jax.interfaces import MAX_SAMPLES, InputError

CALLS = "1,2,4,8,16,50"
CURVE = "1,8"
SAME = 1e-4  # largest relative difference of a distance between weights that count as the same
# The settings of a row, and their valid values.
SETTINGS = {
    "config": str,  # the name of the file
    "changes": str,  # the fields that --config.FIELD changed, as JSON
    "objective": str,  # a variant
    "first": store.Range(0.0, 0.99, float),  # share of the budget for flow matching, before
    "seed": int,
    "budget": budget.KINDS,
    "amount": store.Range(1e-6, 1e30, float),
    "features": features.names(),
    "num_samples": int,
    "calls": str,
    "curve": str,
}
TRAINED_BY = ("config", "changes", "objective", "first", "seed", "budget", "amount")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared. path: of the configuration file. changes: the fields that --config.FIELD changed. objectives:
    variants. first: see `training.train`. out: directory of the results."""

    path: str
    changes: dict[str, Any]
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: budget.Budget
    first: float
    what: sweeps.Measure
    out: Path

    def base(self, objective: str) -> ml_collections.ConfigDict:
        """The configuration of an objective: that of the file, with the changes, and what follows from the data."""
        config = flag.load(f"{self.path}:{objective}").copy_and_resolve_references()
        for name, value in self.changes.items():
            *sections, field = name.split(".")
            section = config
            for part in sections:
                section = section[part]
            if field in section and name != "objective.name":
                section[field] = value
        return automatic.resolved(config)[0]

    def wanted(self) -> list[store.Settings]:
        """The settings of all rows, seed by seed, so that an interrupted comparison has whole seeds."""
        runs = [
            {
                "config": Path(self.path).stem,
                "changes": json.dumps(self.changes, sort_keys=True),
                "objective": name,
                "first": self.first,
                "seed": seed,
                "budget": self.budget.kind,
                "amount": self.budget.amount,
            }
            for seed in self.seeds
            for name in self.objectives
        ]
        found = [{**run, **self.what.settings()} for run in runs]
        for settings in found:
            self._check_same(settings)
        return found

    def check(self) -> None:
        """InputError for a run that cannot be trained, or results that cannot be written."""
        for objective in self.objectives:
            least = training.least_steps(self.base(variants.parse(objective).objective))
            check_config(training.config_of(self.base, objective, 0, least))
        self.wanted()
        disk.check_writable(self.out / "comparison.md")

    def _check_same(self, settings: store.Settings) -> None:
        """InputError if the row was measured before, with another configuration."""
        row = store.Store(self.out).find(settings)
        if row is None or row["diverged"] is not None:
            return
        now = training.fields_of(training.config_of(self.base, row["objective"], row["seed"], row["last_steps"]))
        then = row["fields"]
        differing = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        if differing:
            name = differing[0]
            raise InputError(
                f"{self.out} has rows of another configuration ({name} was {then.get(name, 'the default')}, and is now "
                f"{now.get(name, 'the default')}): use another --out"
            )

    def measured(self) -> list[store.Values]:
        """The rows that were measured."""
        found = map(store.Store(self.out).find, self.wanted())
        return [row for row in found if row is not None]

    def so_far(self) -> list[store.Values]:
        """The rows that were measured. InputError if there are none."""
        found = self.measured()
        if not found:
            raise InputError(f"{self.out} has no row of this comparison: give the command without --so_far first")
        return found

    def check_features(self, rows: list[store.Values], *more: summary.Identity) -> float:
        """The `floor.spread` of the features of rows. InputError if that is more than rounding. more: further
        identities."""
        identities = sorted({*summary.identities(rows), *more})
        spread = floor.spread(identities, self.what.num_samples, self.out)
        if spread > SAME:
            each = " and ".join(map(str, identities))
            raise InputError(f"{self.out} has rows measured with {each}, which do not compare: use another --out")
        return spread

    def workdir(self, settings: store.Settings) -> str:
        """The directory of a row's training run, which all measures of the run share."""
        return str(self.out / "runs" / store.name({name: settings[name] for name in TRAINED_BY}))

    def measure(self, settings: store.Settings) -> store.Values:
        """Trains and sweeps one run. Divergence is a result too."""
        workdir = self.workdir(settings)
        spending = budget.Budget(settings["budget"], settings["amount"])
        spent = training.train(
            self.base, settings["objective"], settings["seed"], spending, settings["first"], self.out, workdir
        )
        if spent["diverged"] is not None:
            return {**spent, "method": "", "distances": [], "faults": []}
        return {**spent, **sweeps.distances(workdir, sweeps.Measure.of(settings))._asdict()}


def write(comparison: Comparison, rows: list[store.Values]) -> None:
    """Writes tables, figures and the page of the rows asked for. InputError if their features had different weights."""
    out, chosen = comparison.out, summary.groups(rows)
    spread = comparison.check_features(rows)
    identities = summary.identities(rows)
    real = floor.known(identities[0], comparison.what.num_samples, out) if identities else None
    distance = summary.distance_name(rows)
    facts = {"budget": str(comparison.budget), "distance": distance, "spread": spread}
    text = summary.document(chosen, real, facts)
    terminal.say(text)
    disk.write_atomically(out / "comparison.md", text)
    disk.write_atomically(out / "comparison.json", json.dumps(summary.as_json(chosen, real, facts), indent=1) + "\n")
    measured = [row for row in rows if row["distances"]]
    if not measured:
        terminal.say("no run could be measured, so there are no figures")
        return
    pictures = {"curves": plots.curves(chosen, real, distance)}
    if own := [group for group in chosen if group.measured]:
        pictures["diagonals"] = plots.diagonals(own, distance)
    if counts := summary.curve_calls(rows):
        pictures["learning"] = plots.learning(chosen, counts, distance)
    for name, figure in pictures.items():
        disk.write_atomically(out / f"{name}.png", png(figure))
    runs = [comparison.workdir(row) for row in measured]
    there = [workdir for workdir in runs if Path(workdir).is_dir()]
    if there:
        terminal.say(f"page: {report.write(there, str(out / 'page'))}")
    if len(there) < len(runs):
        terminal.say(f"{len(runs) - len(there)} runs are not on the page: their directories are gone")


def define_flags() -> None:
    cli.define_config("FILE.py, like configs/cifar8.py: data, network and schedule of all runs.")
    store.define_flags("runs/compare")
    flags.DEFINE_list("objectives", [], "Objectives or variants like 'psd(split=uniform)'; all by default.")
    flags.DEFINE_list("seeds", ["0", "1"], "Seeds of the runs.")
    flags.DEFINE_string("budget", "images:1e6", f"What each run may spend: KIND:AMOUNT, of {', '.join(budget.KINDS)}.")
    flags.DEFINE_float("first", 0.0, "Share of the budget that flow matching spends first, as a start.", 0.0, 0.99)
    flags.DEFINE_list("steps", CALLS.split(","), "Numbers of sampling steps (network calls).")
    flags.DEFINE_list("curve", CURVE.split(","), "Those measured during training too; none: --curve=")
    flags.DEFINE_enum("features", None, features.names(), "Features of the distance; by default the configuration's.")
    flags.DEFINE_bool("so_far", False, "Train nothing: write tables and figures of the rows that DIR has.")
    flags.DEFINE_integer("num_samples", None, "Generated examples; by default the configuration's.", 2, MAX_SAMPLES)


def asked(given: flags.FlagValues, argv: list[str]) -> Comparison:
    """What the command line asks for. InputError for an impossible request."""
    files, _ = flag.take(given.read_flags_from_files(argv), "config")
    path, _, objective = files[-1].partition(":")
    config = given.config
    if objective:
        raise InputError(f"--config={files[-1]}: name {objective} in --objectives")
    for name in ("init_from", "fork_from"):
        if config.train[name]:
            raise InputError(f"--config.train.{name}: leave it out; --first lets runs begin with {training.FIRST}")
    spending = budget.parse(given.budget)
    if spending.kind == "seconds" and given.processes > 1:
        raise InputError(f"--budget={spending} is the time of a run alone: use --processes=1, or a budget of flops")
    chosen = variants.from_flag(given.objectives) or list(objectives.names())
    if given.first and training.FIRST in chosen:
        raise InputError(f"--first={given.first} begins with {training.FIRST}: leave it out of --objectives")
    return Comparison(
        path=path,
        changes=training.changes(config, flag.load(files[-1])),
        objectives=tuple(dict.fromkeys(chosen)),
        seeds=cli.integers("seeds", given.seeds),
        budget=spending,
        first=given.first,
        what=sweeps.Measure(
            features=given.features or config.eval.features,
            num_samples=given.num_samples or config.eval.num_samples,
            calls=cli.integers("steps", given.steps, least=1),
            curve=cli.integers("curve", given.curve, least=1) if given.curve else (),
        ),
        out=Path(given.out),
    )


def main(_):
    given = flags.FLAGS
    cli.require(config=given.config)
    cli.start_jax(alone=True)
    comparison = asked(given, sys.argv[1:])
    if not given.row:
        comparison.check()
    if given.so_far:
        write(comparison, comparison.so_far())
        return
    if not given.row:  # first, so that the processes of the rows find classifier and statistics
        extract = reference.extractor(given.config.data, comparison.what.features, None, None)
        real = floor.measured(given.config, extract, comparison.what.num_samples, comparison.out)
        comparison.check_features(comparison.measured(), summary.Identity.of(real))
    rows = store.from_command("eval.compare", SETTINGS, comparison.wanted, comparison.measure, arguments=sys.argv[1:])
    if rows is not None:
        write(comparison, rows)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
