"""Is the exact flow map a stationary point of an objective, and is a wrong one not?

    python -m eval.stationarity --out=runs/stationarity --processes=2
    python -m eval.stationarity --out=runs/stationarity --objectives=esd,lsd --laws=mixture

The network is F = F_exact + sum_k theta_k phi_k, on data whose exact flow map is known. Measures the expected gradient
with respect to theta at the truth (theta = 0), where it must vanish, and at two wrong maps, where it must not. Variants
known to be wrong run as controls. Objectives with guidance run on the labelled law, whose truth is guided too. Writes
DIR/stationarity.json, .md and .png; rows measured earlier are reused.
"""

import json
from pathlib import Path

import jax
import numpy as np
from absl import flags

from eval.exact import audit, plots
from eval.tables import store, variants
from sgflow_jax import cli, objectives, terminal
from sgflow_jax.files import disk
from sgflow_jax.interfaces import MAX_SEED, InputError

# The settings of a row, and their valid values.
SEEDS = store.Range(0, MAX_SEED - 1)
SAMPLES = store.Range(2 * audit.BATCH * audit.CHUNK, MAX_SEED)
TOLERANCES = store.Range(1e-6, 1.0, float)
SETTINGS = {"objective": str, "law": tuple(audit.LAWS), "seed": SEEDS, "max_samples": SAMPLES, "tolerance": TOLERANCES}


def _noise_cell(row: store.Values) -> str:
    value = audit.noise(row)
    return "-" if value is None else "0" if value < 1e-9 else f"{value:.3g}"


def _growth(row: store.Values) -> str:
    response = row["response"]
    if response is None:
        return "-"
    size = f"{response['norms'][1] / np.linalg.norm(row['perturbed']['gradient']):.2g}"
    return f"{size}, order {response['order']:.1f}" if response["order"] is not None else f"{size}, order unclear"


COLUMNS = {
    "objective": lambda row: row["objective"],
    "law": lambda row: row["law"],
    "z at the truth": lambda row: f"{row['exact']['z']:.1f}",
    "z perturbed": lambda row: f"{row['perturbed']['z']:.0f}",
    "z velocity as map": lambda row: f"{row['velocity']['z']:.0f}",
    "gradient, relative": lambda row: f"{audit.bias(row):.2g}",
    "noise": _noise_cell,
    "response to a velocity error": _growth,
    "samples": lambda row: f"{row['exact']['samples']:,}",
    "verdict": audit.verdict,
}


def wanted(names: list[str], laws: list[str], seed: int, max_samples: int, tolerance: float) -> list[store.Settings]:
    """The settings of all rows: variants, discretisations and controls. names: only these objectives or variants."""
    audited = [variant.name for variant in [*variants.every(), *variants.guided()]]
    everything = audited + sum(audit.SERIES.values(), []) + list(audit.CONTROLS)
    chosen = [e for e in everything if not names or e in names or e.partition("(")[0] in names]
    chosen += [name for name in names if name not in objectives.names()]
    if not laws or not set(laws) <= set(audit.LAWS):
        raise InputError(f"--laws={','.join(laws)}: use {', '.join(audit.LAWS)}")
    return [
        {"objective": name, "law": law, "seed": seed, "max_samples": max_samples, "tolerance": tolerance}
        for name in dict.fromkeys(chosen)
        for law in laws
        if audit.suits(name, law)
    ]


def define_flags() -> None:
    store.define_flags("runs/stationarity")
    flags.DEFINE_list("objectives", [], "Objectives or variants like 'esd(stopgrad=none)'; all by default.")
    flags.DEFINE_list("laws", list(audit.LAWS), "Data laws.")
    flags.DEFINE_integer("seed", 0, "Seed of the samples.", SEEDS.least, SEEDS.most)
    what = "Most samples of an expectation."
    flags.DEFINE_integer("max_samples", 2**17, what, SAMPLES.least, SAMPLES.most)
    what = "Standard error to reach, relative to the gradient at a wrong map."
    flags.DEFINE_float("tolerance", 0.005, what, TOLERANCES.least, TOLERANCES.most)


def main(_):
    given = flags.FLAGS
    cli.start_jax(alone=True)
    jax.config.update("jax_enable_x64", True)  # so that the finite number of samples is the only error
    out = Path(given.out)

    def asked():
        return wanted(variants.from_flag(given.objectives), given.laws, given.seed, given.max_samples, given.tolerance)

    found = store.from_command("eval.stationarity", SETTINGS, asked, audit.measure)
    if found is None:
        return
    table = store.markdown(COLUMNS, found)
    terminal.say(table)
    disk.write_atomically(out / "stationarity.json", json.dumps(found, indent=1) + "\n")
    disk.write_atomically(out / "stationarity.md", table)
    disk.write_atomically(out / "stationarity.png", plots.stationarity(found))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
