"""Two processes of two devices each train, sample and measure as one process does."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from eval import fid_sweep, results
from sgflow_jax import build, generate, trainer
from tests import tiny

ROOT = Path(__file__).parent.parent

WORKER = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{sys.argv[1]}", num_processes=2, process_id=int(sys.argv[2]))
from eval import fid_sweep
from sgflow_jax import build, generate, processes, trainer
from sgflow_jax.interfaces import InputError
from tests import tiny
config = tiny.mixture()
config.train.preview_every = 2
trainer.train(config, sys.argv[3])
made = generate.examples(build.restore_net(sys.argv[3]), generate.Plan((1,), 2, "flow_map", 0, 8), 10)
if jax.process_index() == 0:
    made.tofile(sys.argv[3] + "/made")

def refuse():
    raise InputError(f"process {jax.process_index()} refuses")

assert processes.on_first_process(lambda: "said") == (None if jax.process_index() else "said")
try:
    processes.on_first_process(refuse)
except InputError as error:
    assert str(error) == "process 0 refuses"
else:
    raise AssertionError("nothing was refused")
fid_sweep.sweep([sys.argv[3]], fid_sweep.Request(steps=(1, 2)))
"""


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, port, str(i), str(tmp_path / "two")],
            cwd=ROOT,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / f"cache{i}")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, out

    # The first process alone writes, and what it says is said once.
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert len(list((tmp_path / "two" / "previews").iterdir())) == 3
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1

    trainer.train(tiny.mixture(), str(tmp_path / "one"))
    nets = [build.restore_net(str(tmp_path / name)) for name in ("one", "two")]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, *(net.params for net in nets))
    made = np.fromfile(tmp_path / "two" / "made", np.float32).reshape(10, 1)
    close(generate.examples(nets[0], generate.Plan((1,), 2, "flow_map", 0, 8), 10), made)

    two = results.read(str(tmp_path / "two"))
    one = shutil.copytree(tmp_path / "two", tmp_path / "again", ignore=lambda *_: {"eval"})
    one = fid_sweep.sweep([str(one)], fid_sweep.Request(steps=(1, 2)))[str(one)]
    assert [row.identity for row in two] == [row.identity for row in one]
    for ours, theirs in zip(one, two, strict=True):
        numbers = [np.hstack([v for v in dataclasses.astuple(row.scores) if v is not None]) for row in (ours, theirs)]
        np.testing.assert_allclose(*numbers, rtol=1e-6)
