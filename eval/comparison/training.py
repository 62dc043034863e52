"""Trains one run of a comparison within its budget."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections

from eval.comparison.budget import PARTS, Budget
from eval.machine import gradient_cost
from eval.scores import while_training
from eval.tables import runs, speed, store, variants
from sgflow_jax import build, trainer
from sgflow_jax.config import fields
from sgflow_jax.devices import provenance
from sgflow_jax.files import locks
from sgflow_jax.run import history

# Lengths that are shares of a run: they keep their ratio to train.num_steps of the config file. So an option of a
# variant like correction_steps is in steps of that file too.
SHARES = (
    "optim.warmup_steps",
    "objective.warmup_steps",
    "objective.ramp_steps",
    "objective.doubling_steps",
    "objective.correction_steps",
)
TRIAL_STEPS = 200  # of the run that measures training speed
FIRST = "flow_matching"  # the objective of the first part of a run, see `train`

Base = Callable[[str], ml_collections.ConfigDict]  # the configuration of an objective, from --config


def config_of(base: Base, objective: str, seed: int, num_steps: int) -> ml_collections.ConfigDict:
    """The configuration of one run.

    objective: a variant. num_steps: a multiple of `least_steps`; every length in SHARES is scaled with it, but none to
    0, which has a meaning of its own. A checkpoint is kept after each of PARTS parts.
    """
    variant = variants.parse(objective)
    config = base(variant.objective).copy_and_resolve_references()
    variant.apply(config)
    config.seed = seed
    scale = num_steps / config.train.num_steps
    for name in SHARES:
        section, _, field = name.partition(".")
        if config[section].get(field):
            config[section][field] = max(1, round(config[section][field] * scale))
    config.train.num_steps = num_steps
    config.train.checkpoint_every = config.train.keep_every = num_steps // PARTS
    config.train.keep_checkpoints = 1
    config.train.preview_every = 0
    config.profile.steps = ()
    return config


def least_steps(config: ml_collections.ConfigDict) -> int:
    """The steps of the shortest run: each of its PARTS is whole calls of the device."""
    return PARTS * config.train.steps_per_dispatch


def train(
    base: Base, objective: str, seed: int, budget: Budget, first: float, folder: Path, workdir: str
) -> store.Values:
    """Trains a run in workdir, from its newest checkpoint if it has one, and returns its cost and whether it diverged.

    first: the share of the budget that a run of flow matching spends before; its network is where the run begins. It
    lies in workdir-first. folder: of the comparison, where measured speeds are kept. Of the values, last_steps and
    fields are the length and the fields of the run in workdir.
    """
    parts = [(objective, 1 - first, workdir)]
    if first:
        parts = [(FIRST, first, f"{workdir}-first"), *parts]
    spent: dict[str, Any] = {"num_steps": 0, "images": 0, "flops": 0.0, "device_seconds": 0.0, "rollbacks": 0}
    begins_with = ""
    for name, share, place in parts:
        try:
            num_steps = _num_steps(base, name, Budget(budget.kind, budget.amount * share), folder)
            config = config_of(base, name, seed, num_steps)
            config.train.init_from = begins_with
            runs.train(config, place, while_training.scorer)
        except trainer.Stopped as stopped:
            return {**spent, "diverged": str(stopped), **_provenance()}
        begins_with = f"{place}@{num_steps}"
        spent["num_steps"] += num_steps
        spent["images"] += num_steps * config.data.batch_size
        spent["flops"] += num_steps * _flops(config)
        spent["device_seconds"] += history.metrics(place)[-1]["device_seconds"]
        spent["rollbacks"] += sum(event.get("event") == "rollback" for event in history.events(place))
    found = {
        "diverged": None,
        "last_steps": num_steps,
        "fields": fields_of(config_of(base, objective, seed, num_steps)),
    }
    return {**spent, **found, **_provenance()}


def _num_steps(base: Base, objective: str, budget: Budget, folder: Path) -> int:
    least = least_steps(base(variants.parse(objective).objective))
    config = config_of(base, objective, 0, -(-TRIAL_STEPS // least) * least)
    config.eval.every = 0
    return budget.num_steps(config.data.batch_size, lambda: _speed(config, folder), lambda: _flops(config), least)


def _flops(config: ml_collections.ConfigDict) -> float:
    """Floating-point operations of a step's gradient."""
    return gradient_cost.gradient_cost(config, build.objective(config)).flops


def _speed(config: ml_collections.ConfigDict, folder: Path) -> float:
    """Steps a second of this run on this device: measured once, so that every seed gets the same number of steps."""
    known = store.Store(folder / "speeds")
    settings = {
        "objective": config.objective.name,
        "config": json.dumps(config.to_dict(), sort_keys=True),
        "device": jax.devices()[0].device_kind,
    }
    with locks.held(folder / "speeds" / "lock"):
        if known.find(settings) is None:
            with store.fresh_workdir(folder, {**settings, "trial": True}) as workdir:
                runs.train(config, workdir)
                known.write(settings, {"steps_per_second": speed.steps_per_second(config, workdir)})
    return known.find(settings)["steps_per_second"]


def _provenance() -> dict[str, Any]:
    facts = provenance.describe(sys.argv)
    return {name: facts[name] for name in ("commit", "dirty", "versions", "device_kind", "started")}


def fields_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields that are not the defaults, as JSON has them."""
    defaults = fields.get_config(config.objective.name)
    defaults.model = fields.network(config.model.name)
    found = changes(config, defaults)
    return json.loads(json.dumps(found))


def changes(given: ml_collections.ConfigDict, plain: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields of `given` that differ from those of the unchanged file."""
    before = fields.flatten(plain.to_dict())
    return {name: value for name, value in fields.flatten(given.to_dict()).items() if value != before[name]}
