"""Two processes of two devices each train and sample as one process does."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from sgflow_jax import build, generate, trainer
from tests import tiny

ROOT = Path(__file__).parent.parent

WORKER = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{sys.argv[1]}", num_processes=2, process_id=int(sys.argv[2]))
from sgflow_jax import build, generate, trainer
from tests import tiny
config = tiny.mixture()
config.train.preview_every = 2
trainer.train(config, sys.argv[3])
made = generate.examples(build.restore_net(sys.argv[3]), generate.Plan((1,), 2, "flow_map", 0, 8), 10)
if jax.process_index() == 0:
    made.tofile(sys.argv[3] + "/made")
"""


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, port, str(i), str(tmp_path / "two")],
            cwd=ROOT,
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
