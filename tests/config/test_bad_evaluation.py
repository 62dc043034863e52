"""Bad input to the commands of the evaluation: exit code 2, one line of fault and remedy, and nothing written."""

import json

import pytest

from tests import rows
from tests.bad_input import Case

SWEEP = "-m eval.fid_sweep --workdir={line}"
REFERENCE = "-m eval.reference --config=configs/quickstart.py"
COST = "-m eval.cost --config=configs/quickstart.py --out={}/x"
PROFILE = "-m eval.profile --config=configs/quickstart.py"
SCORE = "-m eval.score --against=digits"
REPORT = "-m eval.report --workdirs={}/run"
MEASURED = {"run/eval/fid.jsonl": json.dumps(rows.row().flat())}
STATIONARITY = "-m eval.stationarity --out={}/out"
TOY = "-m eval.toy_table --out={}/out"
COMPARE = "-m eval.compare --config=configs/quickstart.py --out={}/out"
ABLATIONS = "-m eval.ablations --out={}/out"
CONFIGS = [f"line/checkpoints/{step}/config/metadata" for step in (2, 4, 6)]

CASES = [
    # The sweep.
    Case("-m eval.fid_sweep --workdirs=gs://bucket/run", "gs://bucket/run is an address (gs) ... give a path"),
    Case("-m eval.fid_sweep --workdir=", "--workdir is missing"),
    Case("-m eval.fid_sweep --workdirs={}/run,,{}/other", "empty part: give --workdir=DIR"),
    Case("-m eval.fid_sweep --workdir={}/run", "no checkpoint: train first"),
    Case("-m eval.fid_sweep --workdir={}/run --num_processes=2", "give all three"),
    Case(f"{SWEEP},{{digits}}", "of different data (digits, mixture1d): measure them separately"),
    Case(f"{SWEEP} --steps=1,0", "integers from 1"),
    Case(f"{SWEEP} --times=0,1 --grid=uniform", "--times=0,1 lists every step: leave out --grid"),
    Case(f"{SWEEP} --num_samples=1", "--num_samples=1: use 2 to"),
    Case(f"{SWEEP} --seeds=2147483648", "use integers from 0 to 2147483647"),
    Case(f"{SWEEP} --checkpoint=3", "no checkpoint of step 3: it has 2, 4, 6"),
    Case(f"{SWEEP} --features=vgg", "<pixels|classifier"),
    Case(f"{SWEEP} --features=inception", "consists of points, but inception needs images: use --features=pixels"),
    Case(f"{SWEEP} --resize=tf1", "pixels has no resize ... leave it out"),
    Case(f"{SWEEP} --reference={{}}/none.npz", "none.npz is missing: make it with python -m eval.reference"),
    Case(f"{SWEEP} --reference={{}}/r.npz", "r.npz is damaged: recreate it", {"r.npz": "PK"}),
    Case(SWEEP, "fid.jsonl, line 1, is not a row of this version: remove it", {"line/eval/fid.jsonl": "{}\n"}),
    Case(SWEEP, "fid.jsonl cannot be read ... remove it", {"line/eval/fid.jsonl": b"\xff"}),
    Case(SWEEP, "eval is a file: give a directory", {"line/eval": "a file"}),
    Case(f"{SWEEP} --checkpoint=6", "checkpoints/6 is damaged (", {CONFIGS[-1]: "{"}),
    Case(
        "-m eval.fid_sweep --workdir={digits} --features=inception --inception_weights={}/w.pth",
        "is not a PyTorch weight file ... (SHA-256 expected",
        {"w.pth": "not weights"},
    ),
    Case(f"{SWEEP} --num_samples=99999999999999", "--num_samples=99999999999999: use 2 to 10000000"),
    Case(f"{SWEEP} --steps=1 --out={{}}/taken", "taken is a file: give a directory", {"taken": "a file"}),
    Case(f"{SWEEP} --steps=1", "samples is a file", {"line/eval/samples": "a file"}),
    Case(SWEEP, "no readable checkpoint (", {name: "[]" for name in CONFIGS}),
    Case(f"{SWEEP} --checkpoint=6", "checkpoints/6 is damaged ( ... use another step", {CONFIGS[-1]: "{}"}),
    Case(f"{SWEEP} --checkpoint=6", "checkpoints/6 is damaged (", {CONFIGS[-1]: "[" * 9999}),
    Case(SWEEP, "fid.jsonl, line 1, is not a row", {"line/eval/fid.jsonl": "[" * 9999}),
    Case(
        SWEEP,
        "fid.jsonl, line 1, is not a row",
        {"line/eval/fid.jsonl": json.dumps({**rows.row().flat(), "network": "../../x"})},
    ),
    # The statistics it compares with.
    Case(REFERENCE.replace("quickstart", "nope"), "no file configs/nope.py"),
    Case(f"{REFERENCE} --split=test", "no split 'test': use train"),
    Case(f"{REFERENCE} --config.eval.features=vgg", "unknown features 'vgg': use one of pixels"),
    Case(f"{REFERENCE} --features=inception --inception_weights={{}}/none", "none is missing: download it"),
    Case(f"{REFERENCE} --selfcheck --num_samples=3", "3 is not integer >= 4"),
    Case(f"{REFERENCE} --selfcheck --split=train", "--selfcheck compares all splits: leave out --split"),
    Case("-m eval.reference", "--config is missing"),
    Case(f"{REFERENCE} --num_samples=10", "--num_samples needs --selfcheck: add it, or leave out --num_samples"),
    # Other people's samples.
    Case(f"{SCORE} --samples={{}}/none", "--samples is ... none', which does not exist: give the place"),
    Case(f"{SCORE} --samples={{}} --resize=tf1,nope", "--resize=tf1,nope: use tf1 or half_pixel"),
    Case(f"{SCORE} --samples={{}} --out={{}}/taken/x", "taken is a file: give a directory", {"taken": "a file"}),
    # The report.
    Case(f"{REPORT} --out={{}}/{'x' * 300}", "--out has a name of more than 255 bytes"),
    Case(REPORT, "--out is missing"),
    Case("-m eval.report --workdir={}/run --out={}/page", "no measured rows: run python -m eval.fid_sweep"),
    Case(f"{REPORT} --out={{}}/taken", "taken is a file: give a directory", {**MEASURED, "taken": "a file"}),
    Case(f"{REPORT} --out={{}}/page", "config.json is damaged: remove it", {**MEASURED, "run/config.json": "{"}),
    Case(
        f"{REPORT} --out={{}}/page",
        "invalid line ([]): remove the line",
        {**MEASURED, "run/metrics.jsonl": "[]"},
    ),
    Case(f"{REPORT} --out={{}}/page", "index.html is a directory: use another", {**MEASURED, "page/index.html": None}),
    Case(f"{REPORT} --out={{}}/page", "quality.png is a directory", {**MEASURED, "page/quality.png": None}),
    # Escape sequences in a file do not reach the terminal.
    Case(f"{REPORT} --out={{}}/page", '("?31m"): remove the line', {**MEASURED, "run/metrics.jsonl": '"\x9b31m"'}),
    # Against exact maps.
    Case("-m eval.map_error --workdir={}/run", "no checkpoint: train first"),
    Case("-m eval.map_error --workdir={digits}", "map of digits is unknown: use mixture1d"),
    Case("-m eval.map_error --workdir={line} --num_samples=99999999999999", "num_samples ... 10000000"),
    Case(f"{STATIONARITY} --objectives=esd(nope=1)", "esd has no option 'nope': use "),
    Case(f"{STATIONARITY} --laws=nope", "--laws=nope: use mixture, gaussian"),
    Case(f"{STATIONARITY} --row={{", "is not JSON ... copy the settings from a file under rows/"),
    Case(f"{STATIONARITY} --row=[]", "objective is None; use a value of type str"),
    Case(f"{STATIONARITY} --tolerance=nan", "--tolerance=nan: use a finite number"),
    Case(f"{STATIONARITY} --objectives=esd(", "'esd(' is not an objective: write NAME"),
    Case(
        f'{STATIONARITY} --row={{"objective":"esd","law":"mixture","seed":-1}}', "seed is -1; use a value of type int"
    ),
    Case(
        f'{STATIONARITY} --row={{"objective":"esd","law":"mixture","seed":0,"max_samples":-5}}',
        "max_samples is -5; use a value of type int from 32768",
    ),
    Case(f"{STATIONARITY} --row={'[' * 9999}", "is not JSON (nested too deep"),
    Case(f"{STATIONARITY} --objectives=esd", "out is a file: give a directory", {"out": "a file"}),
    Case(f"{TOY} --num_steps=150", "--num_steps=150: use a multiple of 100"),
    Case(f"{TOY} --budgets=", "--budgets=: use steps, seconds"),
    Case(TOY, "out is a file: give a directory", {"out": "a file"}),
    Case(f"{TOY} --seconds=nan", "--seconds=nan: use a finite number"),
    Case(f"{TOY} --seeds=0,99999999999", "use integers from 0 to 2147483647"),
    Case(
        f'{TOY} --row={{"data":"mixture1d","objective":"esd","budget":"steps","amount":1.5,"seed":0}}',
        "amount=1.5: use a multiple of 100",
    ),
    Case(f"{ABLATIONS} --toy_steps=7", "--toy_steps=7: use a multiple of 50"),
    Case(f"{ABLATIONS} --seeds=-1", "--seeds=-1: use integers from 0"),
    Case(f"{ABLATIONS} --seeds=0,{'9' * 5000}", "use integers from 0 to 2147483647"),
    Case("-m eval.table1 --results={}", "stationarity.json cannot be read ... run python -m eval.stationarity"),
    Case("-m eval.table1 --doc={}/none.md", "none.md cannot be read ... name a file with the line"),
    Case("-m eval.table1 --doc={}/a.md", "--doc has no place for the table", {"a.md": "text"}),
    Case("-m eval.table1 --config.model.nosuch=3", "config.model has no field nosuch"),
    Case("-m eval.table1 --config.model.channels=3", "channels is 3: use a multiple of 4"),
    # Comparisons on equal budgets.
    Case("-m eval.compare --out={}/out", "--config is missing: give --config="),
    Case(f"{COMPARE} --budget=epochs:3", "--budget=epochs:3: use images:AMOUNT, steps:AMOUNT, seconds:AMOUNT, flops:"),
    Case(
        f"{COMPARE} --first=0.5 --objectives=flow_matching", "begins with flow_matching: leave it out of --objectives"
    ),
    Case(f"{COMPARE} --steps=0,1", "--steps=0,1: use integers from 1"),
    Case(f"{COMPARE} --num_samples=1000000000", "--num_samples=1000000000"),
    Case(COMPARE.replace(".py", ".py:esd"), "quickstart.py:esd: name esd in --objectives"),
    Case(f"{COMPARE} --config.train.init_from=runs/x", "leave it out; --first lets runs begin with flow_matching"),
    Case(f"{COMPARE} --budget=seconds:60 --processes=2", "is the time of a run alone: use --processes=1, or"),
    Case(f"{COMPARE} --objectives=sgflow(estimator=split) --config.data.batch_size=6", "data.batch_size"),
    Case(f"{COMPARE} --objectives=esd", "out is a file: give a directory", {"out": "a file"}),
    # Cost.
    Case("-m eval.scaling --config=configs/quickstart.py --out={}/x/y.json", "x is a file", {"x": "a file"}),
    Case("-m eval.scaling --devices=8 --out={}/x.json", "--config is missing"),
    Case(
        "-m eval.scaling --config=configs/mixture1d.py --devices=0 --out={}/x.json",
        "--devices=0: use integers from 1 to 4096",
    ),
    Case("-m eval.scaling --config=configs/mixture1d.py --config.model.width=-1 --out={}/x.json", "model.width is -1"),
    Case(f"{COST} --stages=count,walk", "--stages=count,walk: use some of count,compile,run,sample"),
    Case(f"{COST} --objectives=nope", "unknown objective 'nope'"),
    Case(f"{COST} --remat=all", "model.remat is 'all': use one of"),
    Case(f"{COST} --dtypes=float16", "dtype is 'float16': use one of float32, bfloat16"),
    Case(f"{COST} --microbatches=0", "--microbatches=0: use integers from 1"),
    Case(f"{COST} --doc={{}}/no.md", "no.md cannot be read (FileNotFoundError): name a file with the line <!-- python"),
    Case(f"{COST} --out={{}}/x/y", "x is a file", {"x": "a file"}),
    Case(f"{COST} --row=3", "objective is None; use a value of type str"),
    Case("-m eval.cost --config=configs/mixture1d.py --out={}/x --remat=block", "works with unet and song_unet only"),
    Case("-m eval.rounding", "--workdir is missing"),
    Case("-m eval.rounding --workdir={}/none", "none"),
    Case("-m eval.rounding --workdir={line} --objectives=nope", "unknown objective 'nope'"),
    Case("-m eval.rounding --workdir={line} --checkpoint=5", "5"),
    Case("-m eval.profile", "--config is missing"),
    Case(f"{PROFILE} --steps=0", "--steps ... 0 ... [1, 10000]"),
    Case(f"{PROFILE} --top=x", "--top"),
    Case(f"{PROFILE} --config.data.batch_size=63", "not divisible by 2"),
    Case(f"{PROFILE} --out={{}}/x/y.json", "x is a file: give a directory", {"x": "a file"}),
    Case(f"{PROFILE} --process_id=0", "give all three"),
]


@pytest.mark.parametrize("case", CASES, ids=Case.id)
def test_bad_input_is_one_line_and_code_2_and_writes_nothing(case, outcome):
    assert outcome.code == 2 and case.is_told(outcome.stderr) and not outcome.changed, outcome
