"""Every objective on data whose exact flow map is known.

    python -m eval.toy_table --out=runs/toy_table --seeds=0,1,2,3,4
    python -m eval.toy_table --out=runs/toy_table --objectives=sgflow --data=mixture1d --budgets=seconds --seconds=30

Trains each objective on each data set with each seed, for equal steps (the config's) and for equal training time, and
compares with the exact map. Writes DIR/toy_table.md, toy_table.json and toy_maps.png; rows measured earlier are reused.
"""

import json
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from eval.exact import errors, plots, toy_runs
from eval.tables import runs, speed, store, variants
from sgflow_jax import build, cli, data, generate, sampling, terminal, trainer
from sgflow_jax.files import disk
from sgflow_jax.interfaces import MAX_SEED, InputError

TRIAL_STEPS = 400  # of the run that measures training speed
SHOWN = 400  # points of the learned map kept for the figure
BUDGETS = ("steps", "seconds")
# The settings of a row, and their valid values.
SETTINGS = {
    "data": tuple(toy_runs.DATA),
    "objective": str,
    "budget": BUDGETS,
    "amount": store.Range(0.1, MAX_SEED, float),
    "seed": int,
}


def measure(settings: store.Settings, folder: Path) -> store.Values:
    """Trains one run and measures its errors. Divergence is a result too."""
    variant = variants.parse(settings["objective"])

    def config_for(num_steps: int) -> ml_collections.ConfigDict:
        return toy_runs.config_of(settings["data"], variant, settings["seed"], num_steps)

    num_steps = settings["amount"]
    if settings["budget"] == "steps":
        toy_runs.check_steps(num_steps, "amount")
    try:
        if settings["budget"] == "seconds":
            trial = config_for(TRIAL_STEPS)
            with store.fresh_workdir(folder, {**settings, "trial": True}) as workdir:
                runs.train(trial, workdir)
                num_steps = (
                    max(2, int(settings["amount"] * speed.steps_per_second(trial, workdir) / toy_runs.PER_CALL))
                    * toy_runs.PER_CALL
                )
        config = config_for(num_steps)
        with store.fresh_workdir(folder, settings) as workdir:
            runs.train(config, workdir)
            net = build.restore_net(workdir)
            return {
                "diverged": None,
                "num_steps": num_steps,
                "steps_per_second": speed.steps_per_second(config, workdir),
                **errors.score(net, config, toy_runs.targets(config, folder)),
                **_shown(net, config),
            }
    except (trainer.Stopped, generate.NotFinite) as stopped:
        return {"diverged": str(stopped), "num_steps": num_steps}


def _shown(net, config: ml_collections.ConfigDict) -> dict:
    """Points at time 0, and where the learned and the exact map carry them at time 1."""
    shape = data.shape(config.data)
    x = jnp.linspace(-3, 3, SHOWN)[:, None] if shape == (1,) else jax.random.normal(jax.random.key(0), (SHOWN, *shape))
    zero, one = jnp.zeros(SHOWN), jnp.ones(SHOWN)
    oracle = data.oracle(config.data.name, config.objective.interpolant)
    learned = errors.jump(net, build.objective(config), 0.0, 1.0, x)
    maps = {"noise": x, "learned": learned, "exact": oracle.flow_map(zero, one, x)}
    return {name: np.round(np.asarray(points), 4).tolist() for name, points in maps.items()}


def summary(found: list[store.Values]) -> list[store.Values]:
    """Groups the rows of all seeds: one group for each data set, budget, amount and objective."""
    groups = defaultdict(list)
    for row in found:
        groups[row["data"], row["budget"], row["amount"], row["objective"]].append(row)
    return [
        {"data": key[0], "budget": key[1], "amount": key[2], "objective": key[3], "rows": group}
        for key, group in groups.items()
    ]


def _cell(name: str):
    """Mean and standard deviation over the seeds that did not diverge."""

    def cell(group: store.Values) -> str:
        values = [row[name] for row in group["rows"] if not row["diverged"]]
        if not values or values[0] is None:
            return "-"
        spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
        return f"{np.mean(values):.3g}{spread}"

    return cell


COLUMNS = {
    "objective": lambda group: group["objective"],
    "RMSE f(0, 1, .)": _cell("one_jump"),
    "RMSE t < u": _cell("all_jumps"),
    **{f"distance, {n} step{'s' * (n > 1)}": _cell(f"distance_{n}") for n in sampling.CALLS},
    "path": _cell("path"),
    "steps": lambda group: f"{np.mean([row['num_steps'] for row in group['rows']]):,.0f}",
    "steps/s": _cell("steps_per_second"),
    "seeds": lambda group: str(len(group["rows"])),
    "diverged": lambda group: str(sum(row["diverged"] is not None for row in group["rows"])),
}


def tables(groups: list[store.Values]) -> str:
    """A Markdown table for each data set and budget."""
    parts = []
    for name, budget, amount in dict.fromkeys((g["data"], g["budget"], g["amount"]) for g in groups):
        chosen = [g for g in groups if (g["data"], g["budget"], g["amount"]) == (name, budget, amount)]
        parts.append(f"### {name}, {amount:,} {budget} of training\n\n{store.markdown(COLUMNS, chosen)}")
    return "\n".join(parts)


def wanted(given: flags.FlagValues) -> list[store.Settings]:
    """The settings of all rows, seed by seed, so that an interrupted table has whole seeds."""
    names = variants.from_flag(given.objectives) or [variant.name for variant in variants.own()]
    for flag, items, allowed in (("data", given.data, toy_runs.DATA), ("budgets", given.budgets, BUDGETS)):
        if not items or not set(items) <= set(allowed):
            raise InputError(f"--{flag}={','.join(items)}: use {', '.join(allowed)}")
    seeds = cli.integers("seeds", given.seeds)
    settings = []
    for seed in seeds:
        for name in given.data:
            for budget in given.budgets:
                steps = given.num_steps or toy_runs.DATA[name].get_config().train.num_steps
                toy_runs.check_steps(steps, "--num_steps")
                amount = steps if budget == "steps" else given.seconds
                settings += [
                    {"data": name, "objective": o, "budget": budget, "amount": amount, "seed": seed} for o in names
                ]
    return settings


def define_flags() -> None:
    store.define_flags("runs/toy_table")
    flags.DEFINE_list("objectives", [], "Objectives or variants like 'psd(split=uniform)'; all by default.")
    flags.DEFINE_list("data", list(toy_runs.DATA), "Data sets.")
    flags.DEFINE_list("budgets", list(BUDGETS), "Equal steps, equal seconds of training, or both.")
    flags.DEFINE_list("seeds", ["0"], "Seeds of the runs.")
    flags.DEFINE_integer("num_steps", None, "Training steps of the budget 'steps'; the config's by default.", 1)
    flags.DEFINE_float("seconds", 10.0, "Training time of the budget 'seconds', without compiling.", 0.1, MAX_SEED)


def main(_):
    given = flags.FLAGS
    cli.start_jax(alone=True)
    out = Path(given.out)
    found = store.from_command("eval.toy_table", SETTINGS, lambda: wanted(given), lambda row: measure(row, out))
    if found is None:
        return
    groups = summary(found)
    table = tables(groups)
    terminal.say(table)
    without_points = [{k: v for k, v in row.items() if k not in ("noise", "learned", "exact")} for row in found]
    disk.write_atomically(out / "toy_table.json", json.dumps(without_points, indent=1) + "\n")
    disk.write_atomically(out / "toy_table.md", table)
    disk.write_atomically(out / "toy_maps.png", plots.toy_maps(found))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
