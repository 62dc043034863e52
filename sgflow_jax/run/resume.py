"""What a run finds in its directory, and taking the directory for itself."""

import contextlib
import time
from typing import Any, NamedTuple

import jax
import ml_collections

from sgflow_jax import data
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import integrity, layout, ownership, record

SHARED_SECONDS = 60  # a network file system may take its time to show a new file to other hosts


class Found(NamedTuple):
    """What is in a workdir: the step to start from; of the run that is there, its configuration and data set."""

    step: int = 0
    config: dict[str, Any] | None = None
    data: dict[str, Any] | None = None


def look(workdir: str, config: ml_collections.ConfigDict) -> Found:
    """InputError if the directory holds another run, or a longer one. Writes nothing."""
    layout.check_places(workdir)
    saved = integrity.newest(workdir)  # first, as another version may have recorded other fields
    if (recorded := record.recorded(workdir)) is not None:
        record.check_same(workdir, recorded, config)
    if saved is None:
        return Found(config=recorded)
    record.check_same(workdir, saved.config, config)
    if saved.step > config.train.num_steps:
        raise InputError(
            f"--workdir={workdir} has a checkpoint of step {saved.step}, and config.train.num_steps is "
            f"{config.train.num_steps}: raise it to go on, or use another --workdir"
        )
    return Found(*saved)


def check_data(workdir: str, found: Found, source: data.Source) -> data.Source:
    """The source, if it is what the run was trained on; else InputError."""
    if found.data not in (None, source.identity()):
        raise InputError(
            f"--workdir={workdir} was trained on {found.data}, but config.data points to {source.identity()}: set "
            "config.data.data_dir to the former"
        )
    return source


def claim(stack: contextlib.ExitStack, workdir: str, config: ml_collections.ConfigDict, found: Found) -> str:
    """Takes the directory for this run; the token that says so. InputError if another run was there meanwhile."""
    disk.make_directory(layout.checkpoints(workdir))

    def check():
        now = integrity.newest(workdir, quiet=True)
        if (now.step if now else 0) != found.step:
            raise InputError(
                f"another run has just written to --workdir={workdir}: give the command again to go on from it"
            )
        if not found.step:  # else one was read just now
            integrity.check_store(workdir)

    token = stack.enter_context(ownership.claimed(workdir, check))
    record.record(workdir, config)
    return token


def check_shared(workdir: str, token: str) -> None:
    """InputError if this process does not see the claim of the first one."""
    for _ in range(SHARED_SECONDS):
        if ownership.claim(workdir) == token:
            return
        time.sleep(1)
    raise InputError(
        f"process {jax.process_index()} does not see what the first one wrote to --workdir={workdir}: use a directory "
        "that all hosts share"
    )
