"""The processes of a run: how they find each other, and what they agree on."""

import contextlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sgflow_jax import terminal
from sgflow_jax.devices import provenance
from sgflow_jax.interfaces import InputError

# A process that has not been heard of for so long is dead, and the runtime ends the others.
HEARTBEAT_SECONDS = 30
# Processes wait so long for each other at the start.
JOIN_SECONDS = 300
# A process that has left is waited for so long at the end; then the runtime ends all.
SHUTDOWN_SECONDS = 30
# A process that ends by a fault waits so long for the others, which may end by the same fault.
LEAVE_SECONDS = 10
# What says that a pod is one of several: its number in an indexed job, or the other hosts of a TPU slice.
_OF_SEVERAL_PODS = ("JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
_joined = False


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a run (jax.distributed), before the first use of a device.

    coordinator: HOST:PORT of the first process. With the three arguments nothing else is looked at; without them, as
    found on TPU slices and under SLURM, Open MPI or Kubernetes, or a process alone. InputError for wrong arguments, a
    cluster that cannot be joined; when the others do not come in JOIN_SECONDS, the process ends as by one.
    """
    given = (coordinator, num_processes, process_id)
    flags = f"--coordinator={coordinator} --num_processes={num_processes} --process_id={process_id}"
    detect = not any(value is not None for value in given)
    if detect and "1" in (os.environ.get("SLURM_NTASKS"), os.environ.get("OMPI_COMM_WORLD_SIZE")):
        return  # JAX would give the process one GPU of those it has
    if not detect:
        host, _, port = (coordinator or "").rpartition(":")
        is_port = port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16
        if None in given or not host or not is_port or not 0 <= process_id < num_processes:
            raise InputError(
                f"{flags}: give all three, as --coordinator=HOST:PORT --num_processes=N and, on each, "
                "--process_id=0 to N-1"
            )
    try:
        with _waited_for("" if detect else f"{flags}: "), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an environment that looks like a cluster
            jax.distributed.initialize(
                *given,
                cluster_detection_method=None if detect else "deactivate",
                initialization_timeout=JOIN_SECONDS + 60,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=SHUTDOWN_SECONDS,
            )
    except Exception as error:  # what detection raises depends on the cluster, and on what it talks to
        said = " ".join(str(error).split())
        if detect and "coordinator_address should be defined" in said:  # no cluster
            return
        if not detect:
            raise InputError(f"the processes did not come together ({said}): check {flags} on each of them") from error
        if "KUBERNETES_SERVICE_HOST" in os.environ and not any(name in os.environ for name in _OF_SEVERAL_PODS):
            terminal.say(f"warning: no Kubernetes cluster to join ({said}): this process runs alone", to_stderr=True)
            return
        raise InputError(
            f"the cluster this process is in cannot be joined ({type(error).__name__}, {said}): give --coordinator="
            "HOST:PORT --num_processes=N --process_id=0 to N-1, with N=1 for a process alone"
        ) from error
    global _joined
    _joined = True


@contextlib.contextmanager
def _waited_for(given: str) -> Iterator[None]:
    """Around waiting for others, which JAX does outside Python and ends with its own abort: Ctrl-C ends the process at
    once, and JOIN_SECONDS with a line and code 2."""

    def late():
        fault = f"{given}the other processes did not come in {JOIN_SECONDS} s"
        terminal.say(f"error: {fault}: start all within that time, with one coordinator", to_stderr=True)
        os._exit(2)

    timer = threading.Timer(JOIN_SECONDS, late)
    timer.daemon = True
    timer.start()
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if is_main and before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        timer.cancel()
        if is_main:
            signal.signal(signal.SIGINT, before)


def several() -> bool:
    """Whether this process is one of several that it has joined."""
    return _joined and jax.process_count() > 1


def meet() -> None:
    """Waits, at the end of a command, until all processes are at their end: the first may still be writing."""
    if several():
        first_with(False)


def leave_soon(code: int) -> None:
    """To be called by a process that is to end with a code other than 0, perhaps alone, after it has said why."""
    if several():
        timer = threading.Timer(LEAVE_SECONDS, os._exit, [code])
        timer.daemon = True
        timer.start()


def check_same(fields: dict[str, Any]) -> None:
    """InputError on every process unless all have the same fields (of what JSON can say), the same code and the same
    libraries; it names what differs."""
    if not several():
        return
    code = {"the code of sgflow_jax": provenance.fingerprint()}
    versions = {f"the version of {name}": version for name, version in provenance.versions().items()}
    ours = {name: json.dumps(value, sort_keys=True) for name, value in {**fields, **code, **versions}.items()}
    first = from_process(ours)
    if (other := first_with(ours != first)) is None:
        return
    theirs = from_process(ours, other)
    differing = [
        f"{name} ({first.get(name, 'absent')} on process 0, {theirs.get(name, 'absent')} on process {other})"
        for name in sorted({*first, *theirs})
        if first.get(name) != theirs.get(name)
    ]
    raise InputError(
        f"the processes differ in {', '.join(differing)}: start the same command, with the same code, on each of them"
    )


def from_process(value: Any, source: int = 0) -> Any:
    """Broadcasts a JSON-serialisable value from one process to all."""
    if jax.process_count() == 1:
        return value
    is_source = jax.process_index() == source
    text = np.frombuffer(json.dumps(value if is_source else None).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text)), is_source))
    padded = np.resize(text, length)  # whatever the others have is not looked at
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded, is_source)).tobytes())


def on_first(function: Callable[[], Any]) -> Any:
    """Runs function() on the first process; None on the others. Its InputError is raised on all, so that none waits for
    a process that has left."""
    return on_all(lambda: function() if jax.process_index() == 0 else None)


def from_first(function: Callable[[], Any]) -> Any:
    """Runs function() on the first process and broadcasts its JSON-serialisable result. An InputError is raised on
    all."""
    return from_process(on_first(function))


def on_all(function: Callable[[], Any]) -> Any:
    """Runs function() on every process. If it raises InputError on any, all raise it. It must not wait for others."""
    found, fault = None, None
    try:
        found = function()
    except InputError as error:
        fault = error
    if (failed := first_with(fault is not None)) is not None:
        raise InputError(from_process(str(fault), failed)) from fault
    return found


def first_with(flag: bool) -> int | None:
    """The index of the first process with the flag set, or None. The same on every process."""
    flags = np.array([flag])
    if jax.process_count() > 1:
        flags = multihost_utils.process_allgather(flags, tiled=True)
    return int(np.argmax(flags)) if np.any(flags) else None
