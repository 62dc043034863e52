"""Two processes of four devices each train, restore, stop, fail, sample and measure as one process does."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from eval import fid_sweep
from eval.scores import results
from sgflow_jax import build, trainer
from sgflow_jax.devices import processes
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.commands import ROOT

# Less patient than real runs; otherwise main.py and its flags.
MAIN = """
from sgflow_jax import cli, main
main.define_flags()
from sgflow_jax.devices import processes
from sgflow_jax.run import ownership
processes.HEARTBEAT_SECONDS, processes.LEAVE_SECONDS, ownership.SHARED_SECONDS = 5, 2, 1
cli.run(main.main)
"""

# Given other seeds, which is refused, and passed over here.
AGREE = """
import jax
from sgflow_jax import cli, main
main.define_flags()
from sgflow_jax.devices import processes
from sgflow_jax.interfaces import InputError
def refuse(number):
    if jax.process_index() == number:
        raise InputError(f"process {number} refuses")
    return "said"
def agree(_):
    try:
        cli.start_jax()
    except InputError as error:
        assert "the processes differ in seed (0 on process 0, 1 on process 1): start" in str(error)
    else:
        raise AssertionError
    processes.check_same({"a": 1})
    assert processes.on_first(lambda: "said") == (None if jax.process_index() else "said")
    assert processes.from_process(f"of {jax.process_index()}", 1) == "of 1"
    assert processes.first_with(jax.process_index() == 1) == 1 and processes.first_with(False) is None
    processes.on_all(lambda: refuse(1))
cli.run(agree)
"""

# The second process alone has a fault, in its third step.
FAULT = MAIN.replace(
    "cli.run",
    """
import itertools, jax; from sgflow_jax.devices import sharding; from sgflow_jax.interfaces import InputError
def to_devices(*arguments, steps=itertools.count(1), real=sharding.to_devices):
    if next(steps) == 3 and jax.process_index() == 1:
        raise InputError("an image is damaged: restore it")
    return real(*arguments)
sharding.to_devices = to_devices
cli.run""",
)


STARTED = []


@pytest.fixture(autouse=True)
def ended():
    """No process outlives its test, even if the test fails."""
    yield
    while STARTED:
        worker = STARTED.pop()
        worker.kill()
        worker.wait()


def _start(code, *arguments, count=2, devices=4, own=((), ()), places=(ROOT, ROOT)):
    """Processes 0 to count - 1. own: more arguments of each. places: where each is started."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "compiled")
    environment["PYTHONPATH"] = str(ROOT)
    several = [f"--coordinator=localhost:{port}", f"--num_processes={count}"]
    start = functools.partial(
        subprocess.Popen, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    how = "-c" if "\n" in code else "-m"
    command = [sys.executable, how, code, *arguments, *several]
    workers = [start([*command, *own[i], f"--process_id={i}"], cwd=places[i]) for i in range(count)]
    STARTED.extend(workers)
    return workers


def _wait(workers, code=0):
    said = [worker.communicate(timeout=150)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [code] * len(workers), "\n".join(said)
    return said


def _config(num_steps=10, fsdp=1):
    """Wide enough for its parameters to be split, and deep enough for several collectives."""
    config = _small(num_steps)
    config.model.width, config.model.depth = 64, 4
    config.mesh.fsdp = fsdp
    return config


def _small(num_steps):
    config = tiny.mixture(num_steps=num_steps)
    config.optim.schedule = "constant"  # so that a shorter run is the start of a longer one
    return config


def _arguments(config, workdir):
    """The same configuration as flags."""
    base = tiny.mixture1d.get_config().to_dict()
    flags = [f"--config={ROOT}/configs/mixture1d.py", f"--workdir={workdir}"]
    for section, fields in config.to_dict().items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if value != base[section][name]:
                flags.append(f"--config.{section}.{name}={value}")
    return flags


def _close(a, b):
    """To 1e-6, relative, of all numbers together."""
    left, right = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    assert np.linalg.norm(left - right) <= 1e-6 * np.linalg.norm(right)


def _restored(workdir):
    return [build.restore_net(str(workdir), ema=ema).params for ema in (True, False)]


def _rows(workdir):
    return [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_agree_and_refuse_together():
    first, second = _wait(_start(AGREE, devices=1, own=[["--seed=0"], ["--seed=1"]]), code=2)
    assert "error: process 1 refuses" in first and "error: process 1 refuses" in second


@pytest.mark.slow
def test_a_run_moves_between_layouts_and_equals_one_process(tmp_path):
    """One process and all copies; two, sharded, which also sample and measure; one, sharded otherwise."""
    alone, workdir, again = (tmp_path / name for name in ("alone", "run", "again"))
    trainer.train(_config(), str(alone))
    trainer.train(_config(4), str(workdir))
    config = _config(8, fsdp=8)
    config.train.preview_every = 2
    _wait(_start(MAIN, *_arguments(config, workdir)))
    # The first process alone writes, and what it says is said once.
    assert [file.name for file in sorted((workdir / "previews").iterdir())] == ["step_0000006.png", "step_0000008.png"]
    assert len(list((workdir / "tensorboard").iterdir())) == 2

    _wait(_start("eval.fid_sweep", f"--workdir={workdir}", "--steps=1,2"))
    two = results.read(str(workdir))
    shutil.copytree(workdir, again, ignore=lambda *_: {"eval"})
    one = fid_sweep.sweep([str(again)], fid_sweep.Request(calls=(1, 2)))[str(again)]
    assert [row.identity for row in two] == [row.identity for row in one]
    for ours, theirs in zip(one, two, strict=True):
        numbers = [np.hstack([v for v in dataclasses.astuple(row.scores) if v is not None]) for row in (ours, theirs)]
        np.testing.assert_allclose(*numbers, rtol=1e-6)
    samples = [sorted((path / "eval" / "samples").glob("*.npz")) for path in (workdir, again)]
    for ours, theirs in zip(*samples, strict=True):
        _close(np.load(ours)["examples"], np.load(theirs)["examples"])
    assert len(samples[0]) == 2

    trainer.train(_config(10, fsdp=2), str(workdir))
    _close(_restored(workdir), _restored(alone))
    for ours, theirs in zip(_rows(workdir), _rows(alone), strict=True):
        assert ours["step"] == theirs["step"] and abs(ours["loss"] - theirs["loss"]) <= 1e-6 * abs(theirs["loss"])


def _when(workdir, step, workers):
    """Waits until a run has logged a step."""
    for _ in range(1500):
        if (Path(workdir) / "metrics.jsonl").exists() and any(row["step"] >= step for row in _rows(workdir)):
            return
        if any(worker.poll() is not None for worker in workers):
            break
        time.sleep(0.1)
    raise AssertionError("".join(worker.communicate(timeout=60)[0] for worker in workers))


@pytest.mark.slow
def test_a_death_ends_all_and_a_signal_to_one_stops_all(tmp_path):
    """In a run that goes on, with several steps a dispatch, each of which is saved; the smallest network will do."""

    def config(num_steps):
        config = _small(num_steps)
        config.train.steps_per_dispatch = 2
        return config

    def start():
        return _start(MAIN, *_arguments(config(100_000), tmp_path), devices=1)

    def newest():
        return _rows(tmp_path)[-1]["step"]

    workers = start()
    _when(tmp_path, 6, workers)
    workers[1].kill()
    workers[1].wait()
    died = time.monotonic()
    said, _ = workers[0].communicate(timeout=60)
    assert workers[0].returncode != 0 and time.monotonic() - died < 60
    assert "another task died" in said or "by peer" in said  # who notices first: the runtime, or the step

    workers = start()
    _when(tmp_path, newest() + 6, workers)
    workers[0].send_signal(signal.SIGINT)  # which is passed on as the other
    assert "the same command continues from there" in _wait(workers)[0]
    (stop,) = [json.loads(line) for line in (tmp_path / "events.jsonl").open() if '"stopped"' in line]
    assert f"saved step {stop['step']}:" in stop["what"] and newest() == stop["step"]

    trainer.train(config(stop["step"] + 6), str(tmp_path))
    assert newest() == stop["step"] + 6


@pytest.mark.slow
def test_a_directory_that_is_not_shared_is_refused(tmp_path):
    """Each process has its own. So it is with one that a run of one host left behind."""
    trainer.train(_small(4), str(tmp_path / "0" / "run"))
    (tmp_path / "1").mkdir()
    workers = _start(MAIN, *_arguments(_small(8), "run"), places=[tmp_path / "0", tmp_path / "1"])
    for said in _wait(workers, code=2):
        assert "process 1 does not see what the first one wrote" in said
    assert not any((tmp_path / "1").iterdir())


@pytest.mark.slow
def test_a_fault_of_one_process_ends_all(tmp_path):
    """Although the others wait for it in their step, and it for them when it closes what they share."""
    workers = _start(FAULT, *_arguments(tiny.mixture(), tmp_path / "run"), devices=1)
    said = [worker.communicate(timeout=150)[0] for worker in workers]
    assert workers[1].returncode == 2 and "error: an image is damaged" in said[1]
    assert workers[0].returncode not in (0, None)


@pytest.mark.parametrize(
    "given, match",
    [
        (("localhost:1", None, 0), "give all three"),
        ((None, 2, 0), "give all three"),
        (("localhost", 2, 0), "HOST:PORT"),
        (("localhost:http", 2, 0), "HOST:PORT"),
        (("localhost:1", 2, 2), "0 to N-1"),
        (("localhost:1", 0, 0), "0 to N-1"),
        (("localhost:0", 2, 0), "HOST:PORT"),
        (("localhost:65536", 2, 0), "HOST:PORT"),
    ],
)
def test_flags_that_cannot_be_are_refused(given, match):
    with pytest.raises(InputError, match=match):
        processes.join(*given)


class _ClusterError(Exception):
    """As the client of Kubernetes has one of its own."""


POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
NONE = (None, None, None)


@pytest.mark.parametrize(
    "environment, error, given, match",
    [
        ({}, ValueError("coordinator_address should be defined."), NONE, None),
        (POD, _ClusterError("no\ntoken"), NONE, None),
        ({**POD, "JOB_COMPLETION_INDEX": "1"}, _ClusterError("no token"), NONE, "no token.*N=1"),
        ({**POD, "TPU_WORKER_HOSTNAMES": "a,b"}, RuntimeError("late"), NONE, "late.*N=1"),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}, KeyError("OMPI_COMM_WORLD_SIZE"), NONE, "KeyError.*N=1"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, AssertionError("JAX would take one of its devices"), NONE, None),
        ({"JAX_LOCAL_DEVICE_IDS": "a"}, ValueError("invalid literal"), ("h:1", 1, 0), "h:1.*on each of them"),
    ],
)
def test_a_process_alone_needs_no_cluster(environment, error, given, match, monkeypatch, capsys):
    """Nor does one whose flags say all: it looks for none."""

    def initialize(*_, cluster_detection_method, **__):
        assert cluster_detection_method == (None if given[0] is None else "deactivate")
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if match:
        with pytest.raises(InputError, match=match):
            processes.join(*given)
        return
    processes.join(*given)
    warned = ["warning: no Kubernetes cluster to join (no token): this process runs alone"]
    assert capsys.readouterr().err.splitlines() == warned * isinstance(error, _ClusterError)


def test_a_process_alone_agrees_with_itself():
    assert processes.from_process({"a": 1}) == {"a": 1} and processes.on_all(lambda: 3) == 3
    assert processes.first_with(True) == 0 and processes.first_with(False) is None
