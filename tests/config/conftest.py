"""Runs commands with bad input, each in a fork of one process that has imported the libraries."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.bad_input import Outcome
from tests.commands import ROOT

# What the commands import, which takes a fresh interpreter seconds; no backend of JAX starts. Not the commands
# themselves: some define the same flags.
PRELOADED = """ml_collections.config_flags sgflow_jax.cli sgflow_jax.trainer sgflow_jax.sample_run
    sgflow_jax.weights.export_run scipy.stats
    sklearn.datasets eval.tables.store eval.page.gallery eval.scores.selfcheck eval.features eval.machine.gradient_cost
    eval.machine.ready_step"""
# Reads [arguments, environment, file for stdout, file for stderr] from each line and answers with the exit code.
SERVER = """
import gc, importlib, json, os, runpy, signal, sys

for name in sys.argv[1].split():
    importlib.import_module(name)
gc.freeze()  # otherwise collecting garbage at a child's end touches, and so copies, all shared memory
for line in sys.stdin:
    arguments, environment, *outputs = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(60)  # so that no case hangs
    for fd, place in enumerate([os.devnull, *outputs]):
        os.dup2(os.open(place, os.O_RDWR | os.O_CREAT), fd)
    os.environ.update(environment)
    is_module = arguments[0] == "-m"
    sys.argv = arguments[is_module:]
    run = runpy.run_module if is_module else runpy.run_path
    run(sys.argv[0], run_name="__main__", **{"alter_sys": True} if is_module else {})
    break
"""


@pytest.fixture(scope="session")
def server():
    """Runs a command in a fork: server(arguments, environment, folder) -> exit code and stderr."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    start = [sys.executable, "-c", SERVER, PRELOADED]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(start, cwd=ROOT, env=environment, **pipes) as process:

        def run(arguments: list[str], environment: dict[str, str], folder: Path) -> tuple[int, str]:
            job = [arguments, environment, *(str(folder / name) for name in ("stdout", "stderr"))]
            print(json.dumps(job), file=process.stdin, flush=True)
            return int(process.stdout.readline()), (folder / "stderr").read_text()

        yield run


def _contents(folder: Path) -> dict[str, str | None]:
    """The SHA-256 of every file below a folder by its path; None for a directory."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def outcome(case, server, tmp_path, request) -> Outcome:
    """Of the command of a case, in a directory of its own."""
    given = tmp_path / "given"
    given.mkdir()
    for run in ("line", "digits"):
        if f"{{{run}}}" in case.command:
            shutil.move(request.getfixturevalue(f"{run}_run"), given / run)
    for name, content in case.files.items():
        place = given / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content if isinstance(content, bytes) else content.encode())
    places = {"{}": given, "{line}": given / "line", "{digits}": given / "digits"}
    command = case.command
    for name, place in places.items():
        command = command.replace(name, str(place))

    before = _contents(given)
    code, stderr = server(command.split(), {"XDG_CACHE_HOME": str(given / "cache")}, tmp_path)
    changed = before.items() ^ _contents(given).items()
    return Outcome(code, stderr, sorted({path for path, _ in changed}))
