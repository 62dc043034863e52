"""The time embedding's scale, for every objective, and the weight of sgflow's correction, on digits and on the line.

python -m eval.ablations --out=DIR --seeds=0,1 writes DIR/ablations.md, ablations.json, time_scale.png, correction.png.
"""

import json
from collections import defaultdict
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags

from configs import quickstart
from eval import fid_sweep, map_error, plots, rows, toy_table, variants
from sgflow_jax import build, cli, objectives, sampling, trainer
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError

TIME_SCALES = (1.0, 10.0, 100.0, 1000.0)
CORRECTIONS = (0.0, 0.1, 0.3, 1.0)
DEFAULT_SCALE = 10.0
CALLS = (1, 4)
CHANNELS = 16
DATA = ("digits", "mixture1d")
# What the figures show of each data set.
SHOWN = {"digits": ("distance_1", "distance_4"), "mixture1d": ("one_jump",)}
LABELS = {
    "distance_1": "Fréchet distance (pixels), 1 step",
    "distance_4": "Fréchet distance (pixels), 4 steps",
    "one_jump": "RMSE of f(0, 1, .)",
}


def _config(settings: rows.Settings) -> ml_collections.ConfigDict:
    variant = variants.parse(settings["objective"])
    if settings["data"] != "digits":
        config = toy_table.config_of(settings["data"], variant, settings["seed"], settings["num_steps"])
    else:
        config = quickstart.get_config(variant.objective)
        for key, value in variant.options:
            config.objective[key] = value
        config.seed = settings["seed"]
        config.train.num_steps = config.train.checkpoint_every = settings["num_steps"]
        config.train.preview_every = 0
        # One level and one block: over a hundred runs must fit into an hour of a laptop.
        config.model.channel_mult, config.model.channels = (1,), CHANNELS
    # A schedule of the correction ends with the run.
    if config.objective.get("correction_steps", 0):
        config.objective.correction_steps = settings["num_steps"]
    config.model.time_scale = settings["time_scale"]
    return config


def measure(settings: rows.Settings, folder: Path) -> rows.Row:
    """One row: a run and its errors. A run that diverges, or whose samples are not finite, is a row too."""
    config = _config(settings)
    with rows.fresh_workdir(folder, settings) as workdir:
        try:
            trainer.train(config, workdir)
            return {"diverged": None, **(_distances if settings["data"] == "digits" else _errors)(config, workdir)}
        except trainer.Stopped as stopped:
            return {"diverged": str(stopped)}


def _errors(config: ml_collections.ConfigDict, workdir: str) -> dict:
    return map_error.score(build.restore_net(workdir), config, map_error.targets(config.data.name, num_samples=5000))


def _distances(config: ml_collections.ConfigDict, workdir: str) -> dict:
    objective = build.objective(config)
    calls = sampling.possible_calls(objective, sampling.method_of(objective), CALLS)
    found = fid_sweep.sweep(workdir, fid_sweep.Request(steps=calls))
    return {f"distance_{row.identity.steps}": row.value for row in found}


def wanted(given: flags.FlagValues) -> list[rows.Settings]:
    """The settings of all rows of both ablations, seeds outermost, so that a part of the work is fewer seeds."""
    if not set(given.data) <= set(DATA):
        raise InputError(f"--data={','.join(given.data)}: use {', '.join(DATA)}")
    chosen = variants.from_flag(given.objectives) or objectives.names()
    cases = [(name, scale) for name in chosen for scale in TIME_SCALES]
    if "sgflow" in chosen:
        cases += [(name, DEFAULT_SCALE) for name in _corrections()]
    steps = {"digits": given.digits_steps, "mixture1d": given.toy_steps}
    return [
        {"data": name, "objective": objective, "time_scale": scale, "num_steps": steps[name], "seed": seed}
        for seed in cli.integers("seeds", given.seeds)
        for name in given.data
        for objective, scale in cases
    ]


def _corrections() -> list[str]:
    weights = [f"sgflow(correction={weight})" for weight in CORRECTIONS if weight != 1.0]
    return [*weights, "sgflow(correction_steps=1)"]  # the last goes from 1 to 0 over the run


def _series(found: list[rows.Row], x_of) -> dict:
    """What `plots.ablation` draws: for each panel and line, the values of the seeds at each x."""
    series = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in found:
        for quantity in SHOWN[row["data"]]:
            value = row.get(quantity)
            if row["diverged"] is None and value is None:
                continue
            title = f"{row['data']}, {row['num_steps']:,} training steps: {LABELS[quantity]}"
            line, x = x_of(row)
            series[title][line][x].append(np.inf if value is None else value)
    return series


def figures(found: list[rows.Row]) -> dict[str, bytes]:
    """time_scale.png, and correction.png if sgflow is among the rows."""
    plain = [row for row in found if "(" not in row["objective"]]
    pictures = {
        "time_scale.png": plots.ablation(
            _series(plain, lambda row: (row["objective"], row["time_scale"])), "highest frequency of the time embedding"
        )
    }
    weights = {"sgflow": "1", "sgflow(correction_steps=1)": "1 to 0"}
    weights.update({f"sgflow(correction={weight})": f"{weight:g}" for weight in CORRECTIONS})
    corrected = [row for row in found if row["objective"] in weights and row["time_scale"] == DEFAULT_SCALE]
    if corrected:
        series = _series(corrected, lambda row: ("sgflow", weights[row["objective"]]))
        pictures["correction.png"] = plots.ablation(series, "weight of the correction")
    return pictures


def table(found: list[rows.Row]) -> str:
    """A Markdown table for each data set: mean and range over the seeds."""
    groups = defaultdict(list)
    for row in found:
        groups[row["data"], row["num_steps"], row["objective"], row["time_scale"]].append(row)

    def cell(quantity):
        def show(group):
            values = [row[quantity] for row in group if row.get(quantity) is not None]
            return f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})" if values else "-"

        return show

    parts = []
    for name, steps in dict.fromkeys(key[:2] for key in groups):
        quantities = [f"distance_{n}" for n in CALLS] + (["one_jump"] if name != "digits" else [])
        columns = {
            "objective": lambda group: group[0]["objective"],
            "time scale": lambda group: f"{group[0]['time_scale']:g}",
            **{quantity.replace("_", " "): cell(quantity) for quantity in quantities},
            "seeds": lambda group: str(len(group)),
            "diverged": lambda group: str(sum(row["diverged"] is not None for row in group)),
        }
        chosen = [group for key, group in groups.items() if key[:2] == (name, steps)]
        parts.append(f"### {name}, {steps:,} training steps\n\n{rows.markdown(columns, chosen)}")
    return "\n".join(parts)


def define_flags() -> None:
    """Only for the program: two modules with the same flags could not be imported together otherwise."""
    rows.define_flags("runs/ablations")
    flags.DEFINE_list("objectives", [], "Objectives; all by default.")
    flags.DEFINE_list("data", list(DATA), "Data sets.")
    flags.DEFINE_list("seeds", ["0", "1"], "Seeds of the runs.")
    flags.DEFINE_integer("digits_steps", 1500, "Training steps on digits.", 1)
    flags.DEFINE_integer("toy_steps", 1500, "Training steps on the line.", 1)


def main(_):
    given = flags.FLAGS
    cli.start_jax()
    store = rows.Store(Path(given.out))
    if given.row:
        settings = rows.from_flag(given.row)
        store.write(settings, measure(settings, store.folder))
        return
    found = rows.complete(
        store, wanted(given), lambda settings: measure(settings, store.folder), "eval.ablations", given.processes
    )
    text = table(found)
    print(text)
    paths.write_atomically(store.folder / "ablations.json", json.dumps(found, indent=1) + "\n")
    paths.write_atomically(store.folder / "ablations.md", text)
    for name, picture in figures(found).items():
        paths.write_atomically(store.folder / name, picture)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
