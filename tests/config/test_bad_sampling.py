"""Bad input to --mode=sample, import and export: exit code 2, one line of fault and remedy, and nothing written."""

import pytest

from tests.bad_input import LINE, NEW, Case

SAMPLE = f"{LINE} --mode=sample --out={{}}/x.npz"

CASES = [
    # --mode=import and export.
    Case("main.py --mode=import --workdir={}/run", "--weights is missing"),
    Case("main.py --mode=import --weights={}/a.pth", "--workdir is missing"),
    Case("main.py --mode=import --weights={}/a.pth --workdir={}/run", "a.pth is missing: download it"),
    Case(f"{LINE} --mode=import --weights={{}}/a.pth", "has files already (checkpoints)"),
    Case("main.py --mode=import --weights={}/a --workdir={}/run --dry_run", "--dry_run is for --mode=train"),
    Case(f"{LINE} --mode=export", "--out is missing"),
    Case(f"{LINE} --mode=export --out={{}}/x.npz", "ends in .safetensors (parameters) or .stablehlo (a sampler)"),
    Case(f"{LINE} --mode=export --out={{}}/x.stablehlo --steps=1,2", "give one number of steps"),
    # --mode=sample.
    Case(f"{LINE} --mode=sample", "--out is missing"),
    Case(f"{SAMPLE} --dry_run", "--dry_run is for --mode=train, not --mode=sample: leave it out"),
    Case(SAMPLE.replace("--mode=sample", "--mode=train"), "is for --mode=sample, not --mode=train: leave it out, or"),
    Case(f"{SAMPLE} --average=ema", "--average is for --mode=import, not --mode=sample"),
    Case(f"{SAMPLE} --config.eval.batch_size=0", "config.eval.batch_size is 0: use a positive integer"),
    Case(f"{NEW} --mode=sample --out={{}}/x.npz", "no checkpoint: train first, or name the directory of a run"),
    Case(f"{LINE} --mode=sample --out={{}}/x.txt", "use a name that ends in .npz"),
    Case(f"{LINE} --mode=sample --out={{}}/none/x.npz", "in a directory that exists"),
    Case(SAMPLE, "x.png is a directory: use another name", {"x.png": None}),
    Case(f"{SAMPLE} --steps=1,,2", "--steps=1,,2: use integers from 1"),
    Case(f"{SAMPLE} --steps=0", "--steps=0: use integers from 1"),
    Case(f"{SAMPLE} --steps=3 --method=heun", "heun cannot spend 3 ... use a positive multiple of 2"),
    Case(f"{SAMPLE} --method=rk4", "unknown sampling method 'rk4': use one of flow_map"),
    Case(f"{SAMPLE} --method=consistency", "consistency cannot sample it: use flow_map"),
    Case(f"{SAMPLE} --times=0,0.5 --steps=1", "--times=0,0.5 lists every step: leave out --steps"),
    Case(f"{SAMPLE} --times=0,0.5", "the times are 0,0.5: use 2 to 33 numbers that increase from 0 to 1"),
    Case(f"{SAMPLE} --parameters=ema_0.5", "has no parameters 'ema_0.5': use one of ema, raw"),
    Case(f"{SAMPLE} --grid=linear", "unknown grid 'linear': use one of uniform"),
    Case(f"{SAMPLE} --seed=-1", "not an integer in the range [0, 2147483647]"),
    Case(f"{SAMPLE} --num_samples=0", "not an integer in the range [1, 10000000]"),
    Case(f"{SAMPLE} --interpolate", "mixture1d is points: leave it out"),
    Case(f"{SAMPLE} --config.seed=3", "another configuration ... seed (there 0, here 3)"),
    Case(f"{LINE} --mode=sample --out={{}}/{'x' * 250}.npz", "cannot be written (File name too long): use another"),
    Case(f"{LINE} --mode=sample --out={{}}/taken/x.npz", "in a directory that exists", {"taken": "a file"}),
    Case(f"{SAMPLE} --steps=99999999999999999999", "--steps=99999999999999999999: use integers from 1 to"),
    Case(f"{SAMPLE} --steps=2000000000", "cannot spend 2000000000 network calls ... up to 1000000"),
    Case(f"{SAMPLE} --num_samples=99999999999999", "num_samples ... 10000000"),
]


@pytest.mark.parametrize("case", CASES, ids=Case.id)
def test_bad_input_is_one_line_and_code_2_and_writes_nothing(case, outcome):
    assert outcome.code == 2 and case.is_told(outcome.stderr) and not outcome.changed, outcome
