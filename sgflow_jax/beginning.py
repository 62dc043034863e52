"""Begins a run with another run's checkpoint: `train.fork_from` takes all of it, `train.init_from` its network only."""

from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from sgflow_jax import build
from sgflow_jax.config.check import completed
from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access
from sgflow_jax.run.checkpoint import Checkpoints
from sgflow_jax.train_step import TrainState

FIELDS = ("fork_from", "init_from")  # of the section train
LABELS = "label.embedding"  # the class table; one of another size is drawn anew
_NAMED = 3  # arrays in an error


class Beginning(NamedTuple):
    """A checkpoint of another run. fork: continue it with its optimiser, at its step; else only its parameters and
    their average are used, at step 0."""

    workdir: str
    step: int
    fork: bool

    def __str__(self) -> str:
        return f"{'' if self.fork else 'parameters of '}step {self.step:,} of {self.workdir}"


def spelled(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy with FIELDS spelled as a run records them, so that the same command continues the run, even if the other
    run no longer exists."""
    config = config.copy_and_resolve_references()
    for field in FIELDS:
        workdir, step = _named(config.train[field])
        if workdir:
            plain = places.run(f"config.train.{field}", workdir)
            config.train[field] = plain if step is None else f"{plain}@{step}"
    return config


def find(config: ml_collections.ConfigDict, like: TrainState) -> Beginning | None:
    """The checkpoint that a new run begins with, and sets the field to its full name; None for new parameters.

    like: shapes of this run's state. InputError if the checkpoint does not exist, or its arrays do not fit.
    """
    given = [field for field in FIELDS if config.train[field]]
    if not given:
        return None
    if len(given) > 1:
        raise InputError(f"config.train has both {' and '.join(given)}: use one of them")
    (field,) = given
    text = f"config.train.{field} is {config.train[field]!r}"
    workdir, step = _named(config.train[field])
    with Checkpoints(workdir, read_only=True) as checkpoints:
        saved = checkpoints.find(step)
    theirs = completed(saved.config)
    theirs = build.state_like(theirs, build.train_step(theirs), build.mesh(config))
    if field == "fork_from":
        _check_step(config, text, saved.step)
        _check_arrays(text, _shapes(theirs), _shapes(like))
    else:
        _check_arrays(text, _shapes(theirs.params), _shapes(like.params), besides=LABELS)
    config.train[field] = f"{workdir}@{saved.step}"
    return Beginning(workdir, saved.step, fork=field == "fork_from")


def first_state(begun: Beginning, fresh: TrainState, like: TrainState) -> TrainState:
    """The state that a run begins with, on the devices.

    fresh: new parameters, for what the checkpoint lacks. like: shapes and shardings.
    """
    if begun.fork:
        with Checkpoints(begun.workdir, read_only=True) as checkpoints:
            state = checkpoints.state(begun.step, like)
        return state.replace(rollbacks=state.rollbacks * 0)
    params, average = (access.open(begun.workdir, begun.step, name).params for name in ("raw", "ema"))
    more = {name: _placed(average, each) for name, each in fresh.more_averages.items()}
    return fresh.replace(
        params=_placed(params, fresh.params), average=_placed(average, fresh.average), more_averages=more
    )


def _placed(theirs: Any, fresh: Any) -> Any:
    """The fresh arrays on the devices, those of the same name and shape replaced by theirs, arrays on the host."""
    known = _by_name(theirs)

    def place(path, array: jax.Array) -> jax.Array:
        found = known.get(_name(path))
        if found is None or found.shape != array.shape:
            return array
        return jax.make_array_from_callback(array.shape, array.sharding, lambda index: np.asarray(found)[index])

    return jax.tree_util.tree_map_with_path(place, fresh)


def _named(text: str) -> tuple[str, int | None]:
    """Splits RUN@STEP; the step is None for RUN alone."""
    workdir, at, number = text.rpartition("@")
    return (workdir, int(number)) if at and number.isdecimal() and len(number) < 20 else (text, None)


def _check_step(config: ml_collections.ConfigDict, text: str, step: int) -> None:
    if step >= config.train.num_steps:
        raise InputError(f"{text}, but train.num_steps is {config.train.num_steps}: use more than {step} steps")
    if step % (each := config.train.steps_per_dispatch):
        raise InputError(
            f"{text}, but step {step} is not a multiple of train.steps_per_dispatch = {each}: use another step, or 1"
        )


def _check_arrays(text: str, theirs: dict[str, tuple], ours: dict[str, tuple], besides: str = "") -> None:
    """InputError, with their names, for arrays that differ in name or shape. besides: the end of a name that may."""
    differing = sorted({name for name, _ in set(theirs.items()) ^ set(ours.items())})
    differing = [name for name in differing if not (besides and name.endswith(besides))]
    if not differing:
        return
    of_optimiser = all(name.startswith(("opt_state", "more_averages")) for name in differing)
    what, section = ("optimiser", "optim") if of_optimiser else ("network", "model")
    shown = [f"{n} is {theirs.get(n, 'absent')} there and {ours.get(n, 'absent')} here" for n in differing[:_NAMED]]
    more = f" and {len(differing) - _NAMED} more arrays differ" if len(differing) > _NAMED else ""
    raise InputError(f"{text}, a run of another {what}: {', '.join(shown)}{more}; use the {section} fields of that run")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in _by_name(tree).items()}


def _by_name(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
