"""Records a run's configuration in its directory, and checks whether another one may continue the run."""

import json
from pathlib import Path
from typing import Any

import ml_collections

from sgflow_jax.config.fields import flatten
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

# A run may be continued with other values of these: they change how long it runs, where its data and its arrays lie,
# what it writes and when it gives up or goes back, not the path of the parameters until then (but the cosine schedule
# ends at num_steps and stretches with it). Not keep_every: what is to be kept for good would then be removed.
MAY_CHANGE = (
    "train.num_steps",
    "train.microbatches",
    "train.on_divergence",
    "train.max_rollbacks",
    "train.max_abs_loss",
    "train.divergence_factor",
    "data.data_dir",
    "data.num_workers",
    "model.remat",
    "objective.tangents",
    "mesh.data",
    "mesh.fsdp",
    "train.log_every",
    "train.preview_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "profile.steps",
    "eval.batch_size",
    "eval.num_samples",
    "eval.features",
    "eval.every",
    "eval.steps",
    "eval.train_samples",
)


# These may name another place, to which it was moved, but not none, nor one where there was none.
MAY_MOVE = ("teacher.workdir",)


# A run may be named without these, or with less of them: whether what is given stands for what the run has.
UNSAID = {
    "teacher.step": lambda given, has: given == 0,
    "teacher.network": lambda given, has: not given,
    "train.keep_every": lambda given, has: given == -1 or (has > 0 and given > 0 and given % has == 0),
    "train.fork_from": lambda given, has: not given or has.startswith(f"{given}@"),
}


def record(workdir: str, config: ml_collections.ConfigDict) -> None:
    """Writes the configuration to the directory, which is made if needed."""
    disk.write_atomically(_config_file(workdir), json.dumps(config.to_dict(), indent=2) + "\n")


def recorded(workdir: str) -> dict[str, Any] | None:
    """The recorded configuration, or None."""
    file = _config_file(workdir)
    try:
        if not file.exists():
            return None
        if not isinstance(found := disk.from_json(file.read_text()), dict):
            raise ValueError("not an object")
        return found
    except ValueError as error:  # damaged JSON, or no text at all
        raise InputError(f"{file} is damaged: remove it and give --config, the checkpoints have a copy") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): use another --workdir") from error


def _config_file(workdir: str) -> Path:
    return Path(workdir) / "config.json"


def check_same(workdir: str, saved: dict[str, Any], config: ml_collections.ConfigDict) -> None:
    """InputError that names the fields in which a saved configuration differs from `config`."""
    # Through JSON, so that tuples and lists compare equal.
    ours, theirs = (flatten(json.loads(json.dumps(tree))) for tree in (config.to_dict(), saved))
    differing = [
        f"{name} (there {theirs.get(name, 'absent')!r}, here {ours.get(name, 'absent')!r})"
        for name in sorted(set(ours) | set(theirs))
        if name not in MAY_CHANGE
        and not (name in UNSAID and name in theirs and UNSAID[name](ours.get(name), theirs[name]))
        and not (name in MAY_MOVE and ours.get(name) and theirs.get(name))
        and ours.get(name, "absent") != theirs.get(name, "absent")
    ]
    if differing:
        raise InputError(
            f"--workdir={workdir} holds a run of another configuration, which differs in {', '.join(differing)}: "
            "give the same values, or another --workdir"
        )
