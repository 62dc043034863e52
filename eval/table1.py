"""The paper's Table 1, measured.

    python -m eval.table1 --config=configs/cifar10.py --doc=docs/objectives.md
    python -m eval.table1 --results=docs/results

What each objective can do and what it costs: from the attributes of its class, from the tables of eval.stationarity and
eval.toy_table (--results), and from the gradient of the network of --config. Prints the table; --doc also replaces the
part of a document between the lines that name this command.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from eval.machine import gradient_cost
from eval.tables import document, store, variants
from sgflow_jax import cli, terminal
from sgflow_jax.config import automatic
from sgflow_jax.config.check import check_config
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.objectives.base import Objective
from sgflow_jax.times import Domain


def measure(config, results: Path) -> list[store.Values]:
    """A row for each objective and each of its own options."""
    found = {name: _read(results / f"{name}.json") for name in ("stationarity", "toy_table")}
    baseline = gradient_cost.gradient_cost(config, variants.parse("flow_matching").make())
    table = []
    for variant in variants.own():
        objective = variant.make()
        spent = gradient_cost.gradient_cost(config, objective)
        table.append(
            {
                "objective": variant.name,
                "any steps": _any_steps(objective),
                "simulation-free": _yes(simulation_free(objective)),
                "regression": _yes(objective.regression),
                "no inverse": _yes(objective.domain is not Domain.BOTH),
                "nested": _yes(objective.nested),
                "z": _largest_z(found["stationarity"], variant.name),
                "path": _path(found["toy_table"], variant.name),
                "FLOPs": f"{spent.flops / baseline.flops:.2f}",
                "memory": f"{spent.residual_bytes / baseline.residual_bytes:.2f}",
            }
        )
    return table


COLUMNS = {
    "objective": "objective",
    "any number of steps": "any steps",
    "follows the ODE: path error": "path",
    "simulation-free": "simulation-free",
    "regression": "regression",
    "no inverse": "no inverse",
    "stationary at the truth: z": "z",
    "back-propagates through nested calls": "nested",
    "FLOPs": "FLOPs",
    "residual memory": "memory",
}


def simulation_free(objective: Objective) -> bool:
    """Whether the network is evaluated only at points of the interpolant, never at another network output.

    Tested with a network that returns NaN: none of its inputs may be NaN.
    """
    spoiled = []

    def net(t, u, x):
        jax.debug.callback(lambda bad: spoiled.append(bool(bad)), jnp.any(jnp.isnan(jax.lax.stop_gradient(x))))
        return x * jnp.nan

    x = jnp.ones((objective.batch_multiple * 4, 2))
    objective(net, x, x, jax.random.key(0), variants.TRAINED)
    jax.effects_barrier()
    return not any(spoiled)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _any_steps(objective: Objective) -> str:
    if objective.domain is Domain.TO_DATA:
        return "by returning to noise"
    if objective.domain is Domain.DIAGONAL:
        return "by integration"
    return "yes" if objective.step_counts is None else f"powers of 2 up to {objective.step_counts[-1]}"


def _largest_z(found: list[store.Values], name: str) -> str:
    z = [row["exact"]["z"] for row in found if row["objective"] == name]
    if not z:
        return "not measured"
    return f"{max(z):.1f}" if variants.parse(name).make().exact else f"{max(z):.1f}, by discretisation"


def _path(found: list[store.Values], name: str) -> str:
    values = [
        row["path"]
        for row in found
        if (row["objective"], row["data"], row["budget"]) == (name, "mixture1d", "steps")
        and row.get("path") is not None
    ]
    return f"{np.mean(values):.3f}" if values else "diverged or not measured"


def _read(file: Path) -> list[store.Values]:
    try:
        found = disk.from_json(file.read_text())
        missing = {"stationarity": {"exact"}, "toy_table": {"data", "budget", "diverged"}}[file.stem]
        if not all(missing | {"objective"} <= row.keys() for row in found):
            raise ValueError
        return found
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{file} cannot be read ({type(error).__name__}): run python -m eval.{file.stem} and set --results"
        ) from error


def define_flags() -> None:
    cli.define_config("FILE.py: the network whose gradient is measured.", "configs/quickstart.py")
    cli.define_path("results", "docs/results", "Directory with stationarity.json and toy_table.json.")
    cli.define_path("doc", None, "Document to put the table into.")


def main(_):
    given = flags.FLAGS
    cli.start_jax(alone=True)
    config, _ = automatic.resolved(given.config)
    check_config(config)
    place = document.Place(Path(given.doc), "python -m eval.table1") if given.doc else None
    table = store.markdown(
        {title: lambda row, key=key: row[key] for title, key in COLUMNS.items()},
        measure(config, Path(given.results)),
    )
    terminal.say(table)
    if place is not None:
        place.fill(table)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
