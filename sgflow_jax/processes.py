"""The processes of a run: how they find each other, and what they agree on."""

import json
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sgflow_jax.interfaces import InputError

# A process that has not been heard of for so long is dead, and the runtime ends the others.
HEARTBEAT_SECONDS = 30
# A process that leaves waits so long for the others, the first of which may still be writing.
SHUTDOWN_SECONDS = 60


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a run (jax.distributed), before the first use of a device.

    coordinator: HOST:PORT of the first process. Without arguments, as found on TPU slices and under SLURM, or a process
    alone. InputError for arguments that cannot be, or when the others do not come.
    """
    # JAX would then give the process one GPU of those it has.
    if coordinator is None and os.environ.get("SLURM_NTASKS") == "1":
        return
    given = (coordinator, num_processes, process_id)
    flags = f"--coordinator={coordinator} --num_processes={num_processes} --process_id={process_id}"
    if any(value is not None for value in given):
        host, _, port = (coordinator or "").rpartition(":")
        if None in given or not host or not port.isdecimal() or not 0 <= process_id < num_processes:
            raise InputError(
                f"{flags}: give all three, as --coordinator=HOST:PORT --num_processes=N and, on each, "
                "--process_id=0 to N-1"
            )
    try:
        jax.distributed.initialize(
            *given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=SHUTDOWN_SECONDS
        )
    except ValueError as error:
        if coordinator is not None or "should be defined" not in str(error):  # what it says where there is no cluster
            raise InputError(f"{flags}: {error}: give all three, or none where a cluster is to be found") from error
    except RuntimeError as error:
        raise InputError(f"the processes did not come together ({error}): check {flags} on each of them") from error


def from_process(value: Any, source: int = 0) -> Any:
    """The value that one process has of anything JSON can say, on every process: what they must agree on."""
    if jax.process_count() == 1:
        return value
    is_source = jax.process_index() == source
    text = np.frombuffer(json.dumps(value if is_source else None).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text)), is_source))
    padded = np.resize(text, length)  # whatever the others have is not looked at
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded, is_source)).tobytes())


def on_first(function: Callable[[], Any]) -> Any:
    """What function() gives on the first process; None on the others. Its InputError is raised on all of them, so that
    none waits for one that has left."""
    return on_all(lambda: function() if jax.process_index() == 0 else None)


def on_all(function: Callable[[], Any]) -> Any:
    """What function(), which may not wait for other processes, gives on each. An InputError of one is raised on all."""
    found, fault = None, None
    try:
        found = function()
    except InputError as error:
        fault = error
    if (failed := first_with(fault is not None)) is not None:
        raise InputError(from_process(str(fault), failed)) from fault
    return found


def first_with(flag: bool) -> int | None:
    """The number of the first process on which the flag is set; None if there is none. The same on every process."""
    flags = np.array([flag])
    if jax.process_count() > 1:
        flags = multihost_utils.process_allgather(flags, tiled=True)
    return int(np.argmax(flags)) if np.any(flags) else None
