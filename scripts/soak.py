"""Kills a quick-start run at random moments, starts it again each time, and compares the end with a run left in peace.

    python scripts/soak.py --kills=50 --out=docs/soak.txt

Exit code 0 if every parameter, average, optimiser state and line of metrics is the same, bit for bit.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

# Lines of the log that span a checkpoint and checkpoints between them; no pictures.
SETTINGS = ["--config.train.checkpoint_every=20", "--config.train.log_every=50", "--config.train.preview_every=0"]


def start(workdir: Path, config: str) -> subprocess.Popen:
    command = [sys.executable, "main.py", f"--config={config}", f"--workdir={workdir}", *SETTINGS]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows(workdir: Path) -> list[dict]:
    """metrics.jsonl without what a clock says; a line that is being written is left out."""
    file = workdir / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    found = [json.loads(line) for line in lines]
    for row in found:
        for clock in ("images_per_second", "wall_seconds", "device_seconds"):
            row.pop(clock, None)
    return found


def newest(workdir: Path) -> int:
    """The step of the newest checkpoint that has its final name."""
    return max((int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def half_written(workdir: Path) -> int:
    return len(list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")))


def numbers(workdir: Path):
    """All that was trained and watched, in the last checkpoint."""
    from sgflow_jax import build, data
    from sgflow_jax.devices import sharding
    from sgflow_jax.run import access
    from sgflow_jax.run.checkpoint import Checkpoints

    opened = access.open(str(workdir))
    config, step, mesh = opened.config, opened.step, sharding.mesh()
    step_fn = build.train_step(config)
    like = build.state_like(config, step_fn, mesh)
    monitor = step_fn.init_monitor(data.batch_like(config.data.name, config.data.batch_size), like)
    with Checkpoints(str(workdir), read_only=True) as checkpoints:
        return step, checkpoints.state(step, like), checkpoints.monitor(step, monitor)


def same(a: Path, b: Path) -> list[str]:
    """What differs between two finished runs."""
    import jax
    import numpy as np

    found = []
    for left, right in zip(*(jax.tree_util.tree_leaves_with_path(numbers(w)) for w in (a, b)), strict=True):
        if not np.array_equal(left[1], right[1], equal_nan=True):
            found.append(jax.tree_util.keystr(left[0]))
    return found + (["metrics.jsonl"] if rows(a) != rows(b) else [])


def where() -> str:
    """Of which code, and on what."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    day = datetime.date.today().isoformat()
    return (
        f"{day}, commit {commit.stdout.strip() or 'unknown'}, {os.cpu_count()} CPU cores, "
        f"Python {platform.python_version()}, jax {importlib.metadata.version('jax')}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs" / "soak")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    rng = random.Random(flags.seed)
    shutil.rmtree(flags.workdir, ignore_errors=True)
    whole, killed = flags.workdir / "whole", flags.workdir / "killed"
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    began = time.monotonic()
    process = start(whole, flags.config)
    while process.poll() is None and not newest(whole):
        time.sleep(0.05)
    waiting = time.monotonic() - began
    assert process.wait() == 0, "the run that was left in peace failed"
    total, seconds = newest(whole), time.monotonic() - began
    say(where())
    say(f"{flags.config}, {total} steps, {' '.join(SETTINGS)}; {seconds:.0f} s in peace. Kills, seed {flags.seed}:")
    say("kill  seconds after its start  last logged step  newest checkpoint  half-written checkpoints")

    # Half of them while it starts, half after it has saved, so that something is left for the kills to come.
    for kill in range(1, flags.kills + 1):
        began, before = time.monotonic(), newest(killed)
        process = start(killed, flags.config)
        moment = rng.uniform(0, waiting)
        if rng.random() < 0.5:
            while process.poll() is None and newest(killed) == before:
                time.sleep(0.005)
            share = (total - before) / total * seconds / (flags.kills - kill + 2)
            moment = time.monotonic() - began + rng.uniform(0, 2 * share)
        while process.poll() is None and time.monotonic() - began < moment:
            time.sleep(0.005)
        if process.poll() is not None:
            say(f"{kill:4}  ended by itself with code {process.returncode}: too soon for {flags.kills} kills")
            return 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        last = max((row["step"] for row in rows(killed)), default=0)
        say(f"{kill:4}  {moment:24.2f}  {last:16}  {newest(killed):17}  {half_written(killed):24}")

    code = start(killed, flags.config).wait()
    differing = same(whole, killed) if code == 0 else [f"the last start ended with code {code}"]
    say(
        "the end differs in " + ", ".join(differing)
        if differing
        else "the end is the same, bit for bit: every array of "
        "the state and the monitor, and every number of metrics.jsonl but times and speed"
    )
    flags.out.write_text("\n".join(lines) + "\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
