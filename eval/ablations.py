"""Two ablations on digits and on the line: the scale of the time embedding, and the weight of sgflow's correction.

    python -m eval.ablations --out=runs/ablations --seeds=0,1
    python -m eval.ablations --out=runs/ablations --data=mixture1d --objectives=sgflow,esd --toy_steps=500

Writes DIR/ablations.md, ablations.json, time_scale.png and correction.png; rows measured earlier are reused.
"""

import json
from collections import defaultdict
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags

from configs import quickstart
from eval import fid_sweep
from eval.exact import errors, plots, toy_runs
from eval.tables import runs, store, variants
from sgflow_jax import build, cli, generate, objectives, sampling, terminal, trainer
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

TIME_SCALES = (1.0, 10.0, 100.0, 1000.0)
CORRECTIONS = (0.0, 0.1, 0.3, 1.0)
DEFAULT_SCALE = 10.0
CALLS = (1, 4)
CHANNELS = 16
DATA = ("digits", "mixture1d")
# The settings of a row, and their valid values.
SETTINGS = {"data": DATA, "objective": str, "time_scale": float, "num_steps": int, "seed": int}
# The quantities in the figures, for each data set.
SHOWN = {"digits": ("distance_1", "distance_4"), "mixture1d": ("one_jump",)}
LABELS = {
    "distance_1": "Fréchet distance (pixels), 1 step",
    "distance_4": "Fréchet distance (pixels), 4 steps",
    "one_jump": "RMSE of f(0, 1, .)",
}


def _config(settings: store.Settings) -> ml_collections.ConfigDict:
    variant = variants.parse(settings["objective"])
    if settings["data"] != "digits":
        config = toy_runs.config_of(settings["data"], variant, settings["seed"], settings["num_steps"])
    else:
        config = quickstart.get_config(variant.objective)
        variant.apply(config)
        config.seed = settings["seed"]
        config.train.num_steps = config.train.checkpoint_every = settings["num_steps"]
        config.train.preview_every = 0
        # One level and one block, so that a hundred runs fit into an hour on a laptop.
        config.model.channel_mult, config.model.channels = (1,), CHANNELS
    config.model.time_scale = settings["time_scale"]
    return config


def measure(settings: store.Settings, folder: Path) -> store.Values:
    """Trains one run and measures its errors. Divergence, or samples that are not finite, is a result too."""
    config = _config(settings)
    with store.fresh_workdir(folder, settings) as workdir:
        try:
            runs.train(config, workdir)
            return {"diverged": None, **_measure(config, workdir, folder)}
        except (trainer.Stopped, generate.NotFinite) as stopped:
            return {"diverged": str(stopped)}


def _measure(config: ml_collections.ConfigDict, workdir: str, folder: Path) -> dict:
    if config.data.name != "digits":
        return errors.score(build.restore_net(workdir), config, toy_runs.targets(config, folder))
    objective = build.objective(config)
    calls = sampling.Sampler(objective).possible(CALLS)
    found = fid_sweep.sweep([workdir], fid_sweep.Request(calls=calls, features="pixels"))[workdir]
    return {f"distance_{row.identity.calls}": row.scores.value for row in found}


def wanted(given: flags.FlagValues) -> list[store.Settings]:
    """The settings of all rows of both ablations, seed by seed, so that an interrupted table has whole seeds."""
    if not given.data or not set(given.data) <= set(DATA):
        raise InputError(f"--data={','.join(given.data)}: use {', '.join(DATA)}")
    chosen = variants.from_flag(given.objectives) or objectives.names()
    if given.toy_steps % toy_runs.PER_CALL:
        raise InputError(f"--toy_steps={given.toy_steps}: use a multiple of {toy_runs.PER_CALL}")
    steps = {"digits": given.digits_steps, "mixture1d": given.toy_steps}

    def cases(num_steps: int) -> list[tuple[str, float]]:
        scales = [(name, scale) for name in chosen for scale in TIME_SCALES]
        return scales + [(name, DEFAULT_SCALE) for name in _corrections(num_steps) if "sgflow" in chosen]

    return [
        {"data": name, "objective": objective, "time_scale": scale, "num_steps": steps[name], "seed": seed}
        for seed in cli.integers("seeds", given.seeds)
        for name in given.data
        for objective, scale in cases(steps[name])
    ]


def _corrections(num_steps: int) -> list[str]:
    weights = [f"sgflow(correction={weight})" for weight in CORRECTIONS if weight != 1.0]
    return [*weights, f"sgflow(correction_steps={num_steps})"]  # the last falls from 1 to 0 over the run


def _series(found: list[store.Values], x_of) -> dict:
    """The input of `plots.ablation`: for each panel and line, the values of the seeds at each x."""
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


def figures(found: list[store.Values]) -> dict[str, bytes]:
    """time_scale.png and correction.png, if there are rows for them."""

    def weight(row: store.Values) -> str | None:
        """The weight of sgflow's correction; None if the row differs from the default in anything else."""
        options = dict(variants.parse(row["objective"]).options)
        if not row["objective"].startswith("sgflow") or row["time_scale"] != DEFAULT_SCALE:
            return None
        return {(): "1", ("correction",): f"{options.get('correction', 1):g}", ("correction_steps",): "1 to 0"}.get(
            tuple(options)
        )

    plain = [row for row in found if "(" not in row["objective"]]
    corrected = sorted((row for row in found if weight(row)), key=weight)
    drawn = {
        "time_scale.png": (
            _series(plain, lambda row: (row["objective"], row["time_scale"])),
            "highest frequency of the time embedding",
        ),
        "correction.png": (_series(corrected, lambda row: ("sgflow", weight(row))), "weight of the correction"),
    }
    return {name: plots.ablation(*arguments) for name, arguments in drawn.items() if arguments[0]}


def table(found: list[store.Values]) -> str:
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
        parts.append(f"### {name}, {steps:,} training steps\n\n{store.markdown(columns, chosen)}")
    return "\n".join(parts)


def define_flags() -> None:
    store.define_flags("runs/ablations")
    flags.DEFINE_list("objectives", [], "Objectives; all by default.")
    flags.DEFINE_list("data", list(DATA), "Data sets.")
    flags.DEFINE_list("seeds", ["0", "1"], "Seeds of the runs.")
    flags.DEFINE_integer("digits_steps", 1500, "Training steps on digits.", 1)
    flags.DEFINE_integer("toy_steps", 1500, "Training steps on the line.", 1)


def main(_):
    given = flags.FLAGS
    cli.start_jax(alone=True)
    out = Path(given.out)
    found = store.from_command("eval.ablations", SETTINGS, lambda: wanted(given), lambda row: measure(row, out))
    if found is None:
        return
    text = table(found)
    terminal.say(text)
    disk.write_atomically(out / "ablations.json", json.dumps(found, indent=1) + "\n")
    disk.write_atomically(out / "ablations.md", text)
    for name, picture in figures(found).items():
        disk.write_atomically(out / name, picture)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
