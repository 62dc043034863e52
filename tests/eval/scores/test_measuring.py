"""How a sweep measures: what it reads and holds, and what a fault costs."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import flax.struct
import jax
import numpy as np
import pytest

from eval import fid_sweep
from eval.fid_sweep import Request, sweep
from eval.scores import measure, measuring, results
from sgflow_jax import generate, models
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import integrity
from tests.commands import ROOT
from tests.rows import copies


def _sweep(workdir, **request):
    return sweep([workdir], Request(**request))[workdir]


def test_each_checkpoint_is_read_once_and_leaves_the_devices_before_the_next(line_run, tmp_path, monkeypatch, undrawn):
    runs = copies(line_run, tmp_path, "ab")
    network, take_net, reads, nets = integrity.network, measuring.Checkpoint.take_net, [], []

    def counted(*arguments, **options):
        reads.append(arguments)
        return network(*arguments, **options)

    def watched(checkpoint):
        assert all(net() is None for net in nets), "an earlier network is still on the devices"
        net = take_net(checkpoint)
        assert checkpoint.opened is None, "the host still has a copy"
        nets.append(weakref.ref(jax.tree.leaves(net.params)[0]))
        return net

    monkeypatch.setattr(integrity, "network", counted)
    monkeypatch.setattr(measuring.Checkpoint, "take_net", watched)
    found = sweep(runs, Request(calls=(1, 2), checkpoints=(4, 6), num_samples=20))
    assert (len(reads), len(nets), sum(map(len, found.values()))) == (4, 4, 8)
    sweep(runs, Request(calls=(1, 2), checkpoints=(4, 6), num_samples=20))
    assert (len(reads), len(nets)) == (8, 4), "nothing to measure, nothing on the devices"


@pytest.mark.slow
def test_a_killed_sweep_continues_to_the_same_file(line_run, tmp_path, undrawn):
    """kill -9 as soon as the first row is there, and the same command again."""
    undisturbed, killed = map(Path, copies(line_run, tmp_path, "ab"))
    sweep([str(undisturbed)], Request(calls=(1, 2, 4), seeds=(0, 1)))

    command = [sys.executable, "-m", "eval.fid_sweep", f"--workdir={killed}", "--steps=1,2,4", "--seeds=0,1"]
    # As many devices as here: another number may round otherwise.
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
    file = killed / "eval" / "fid.jsonl"
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while not (file.exists() and file.read_text()):
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    left = len(file.read_text().splitlines())
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and 1 <= left < 6 and f"[1/{6 - left}]" in done.stdout, done.stderr
    assert file.read_bytes() == (undisturbed / "eval" / "fid.jsonl").read_bytes()


def test_a_row_is_scored_and_written_while_the_next_is_sampled(line_run, tmp_path, monkeypatch, undrawn):
    one, other = copies(line_run, tmp_path, "ab")
    for calls in (1, 2, 4):
        _sweep(one, calls=(calls,))
    sampled = {calls: threading.Event() for calls in (1, 2, 4)}
    scores, batches, scored = measure.scores, generate.batches, []

    def patient_scores(sample, statistics):
        scored.append(len(scored))
        assert scored[-1] == 2 or sampled[(2, 4)[scored[-1]]].wait(30)
        return scores(sample, statistics)

    def patient_batches(net, plan, count):
        sampled[plan.calls].set()
        yield from batches(net, plan, count)
        before = {1: 0, 2: 1, 4: 2}[plan.calls]
        deadline = time.monotonic() + 30
        while len(results.read(other)) < before:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    monkeypatch.setattr(measure, "scores", patient_scores)
    monkeypatch.setattr(generate, "batches", patient_batches)
    _sweep(other, calls=(1, 2, 4))
    assert results.read(other) == results.read(one) and len(scored) == 3


def test_rows_that_cannot_be_written_cost_their_own_run_only(line_run, tmp_path, monkeypatch, undrawn):
    one, other = copies(line_run, tmp_path, "ab")
    refused, append = [], results.append

    def refuse(workdir, row):
        if workdir == other:
            return append(workdir, row)
        refused.append(row.identity.calls)
        raise InputError("the disk is full")

    monkeypatch.setattr(results, "append", refuse)
    with pytest.raises(InputError, match=f"^{one}, step 6: 4 rows not measured: the disk is full$"):
        sweep([one, other], Request(calls=(1, 2, 4, 8), num_samples=20))
    assert refused == [1] and len(results.read(other)) == 4


def _damage_rows(run):
    (Path(run) / "eval").mkdir(exist_ok=True)
    (Path(run) / "eval" / "fid.jsonl").write_text("half a row")


@pytest.mark.parametrize(
    "harm, fault",
    [
        (lambda run: shutil.rmtree(Path(run) / "checkpoints"), None),
        (_damage_rows, "line 1, is not a row.*; .* has no new table and curve"),
    ],
)
def test_what_happens_to_a_run_after_it_was_read(harm, fault, line_run, tmp_path, monkeypatch, capsys, undrawn):
    """Its checkpoint is no longer needed; rows that cannot be added to cost this run only."""
    runs = copies(line_run, tmp_path, "ab")
    take_net = measuring.Checkpoint.take_net

    def harmed(checkpoint):
        if checkpoint.workdir == runs[0]:
            harm(runs[0])
        return take_net(checkpoint)

    monkeypatch.setattr(measuring.Checkpoint, "take_net", harmed)
    found = fid_sweep.attempt(runs, Request(calls=(1,), num_samples=20))
    if fault:
        assert re.match(f"{runs[0]}, step 6: 1 row not measured: .*{fault}", "; ".join(found.faults))
    else:
        assert not found.faults and len(results.read(runs[0])) == 1
    fid_sweep._tell(found, str(tmp_path / "out"))
    told = capsys.readouterr().out
    assert "\n steps  " in told and f"wrote {tmp_path}/out/fid_curve.png" in told
    assert len(results.read(runs[1])) == 1
    for name in ("fid_curve.png", "fid_table.md", "samples.png"):
        assert (Path(runs[1]) / "eval" / name).exists()


@flax.struct.dataclass
class Collapsed(models.BoundNet):
    """Gives the same example whatever the noise."""

    def __call__(self, t, u, x, label=None):
        return -x


def test_faults_are_reported_in_the_order_of_the_rows(line_run, tmp_path, monkeypatch, undrawn):
    """The first is found while a row is scored, the second while one is sampled, the third while one is scored."""
    runs = copies(line_run, tmp_path, "abcd")
    take_net, scores = measuring.Checkpoint.take_net, measure.scores

    def broken(checkpoint):
        net = take_net(checkpoint)
        if checkpoint.workdir == runs[1]:
            return net.replace(params=jax.tree.map(lambda p: p * np.nan, net.params))
        return Collapsed(net.model, None) if checkpoint.workdir in (runs[0], runs[2]) else net

    def late_scores(sample, statistics):
        time.sleep(0.3)
        return scores(sample, statistics)

    monkeypatch.setattr(measuring.Checkpoint, "take_net", broken)
    monkeypatch.setattr(measure, "scores", late_scores)
    same = "1 step: the features of all 100 examples are the same.*"
    with pytest.raises(InputError, match=f"^{runs[0]}, {same}; {runs[1]}, 1 step: .*NaN or inf.*; {runs[2]}, {same}"):
        sweep(runs, Request(calls=(1,)))
    assert [len(results.read(run)) for run in runs] == [0, 0, 0, 1]
