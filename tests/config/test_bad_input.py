"""Bad input to every command: exit code 2, one line on stderr with the fault and the remedy, and nothing written.

Each case runs the command in a fork of a process that has imported the libraries but started no backend of JAX, as a
fresh interpreter takes seconds to import them. Faults of a configuration alone are in test_fields and test_flag; here
is one of each kind.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from tests import rows
from tests.commands import ROOT

# What the commands import. Not the commands themselves: some define the same flags.
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

QUICK = "main.py --config=configs/quickstart.py --workdir={}/run"
IMAGES = "main.py --config=configs/images.py --workdir={}/run --config.data.dir={}/mine"
POINTS = "main.py --config=configs/mixture1d.py --workdir={}/run"
# The fields of the run in {line}, which is that of conftest; ids omit them.
FIELDS = (
    " --config.data.batch_size=16 --config.model.width=8 --config.model.depth=1 --config.objective.warmup_steps=0"
    " --config.objective.ramp_steps=0 --config.train.num_steps=6"
)
LINE = f"main.py --config=configs/mixture1d.py --workdir={{line}}{FIELDS}"
NEW = LINE.replace("{line}", "{}/run")
SAMPLE = f"{LINE} --mode=sample --out={{}}/x.npz"
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
MINE = "main.py --config={}/mine.py --workdir={}/run"


class Case(NamedTuple):
    """A command, and the parts of its error in order, with " ... " between them.

    {} in the command is the test's own directory; {line} and {digits} are runs in it. files: contents by path, written
    there first; None is a directory.
    """

    command: str
    says: str
    files: dict[str, str | bytes | None] = {}

    @property
    def id(self) -> str:
        return " ".join(
            [self.command.replace(FIELDS, ""), *(f"({name}: {content!r:.20})" for name, content in self.files.items())]
        )


CASES = [
    # Flags.
    Case("main.py --workdir={}/run", "--config is missing: give --config="),
    Case("main.py --config=configs/quickstart.py", "--workdir is missing: give --workdir="),
    Case("main.py --config=configs/quickstart.py --workdir=", "--workdir is missing"),
    Case("main.py --config=configs/quickstart.py --workdir=gs://bucket/run", "--workdir=gs://bucket/run is an address"),
    Case("-m eval.fid_sweep --workdirs=gs://bucket/run", "gs://bucket/run is an address (gs) ... give a path"),
    Case(f"{QUICK} --config.data.data_dir=gs://bucket", "data_dir=gs://bucket is an address (gs)"),
    Case(f"{REPORT} --out={{}}/{'x' * 300}", "--out has a name of more than 255 bytes"),
    Case(f"main.py --config={'x' * 300} --workdir={{}}/run", "there is no file xxx"),
    Case(f"{QUICK} --nosuch=1", "nosuch ... --help"),
    Case(f"{QUICK} stray", "unexpected argument 'stray' ... --name=value"),
    Case(f"{QUICK} --mode=play", "<train|sample|import|export>"),
    Case(f"{QUICK} --coordinator=localhost:1", "give all three, as --coordinator=HOST:PORT"),
    Case(f"{QUICK} --coordinator=localhost --num_processes=1 --process_id=0", "give all three"),
    Case(f"{QUICK} --coordinator=localhost:1 --num_processes=2 --process_id=2", "on each, --process_id=0 to N-1"),
    Case(f"{QUICK} --process_id=x", "process_id=x ... see --help"),
    # The file of the configuration.
    Case(
        "main.py --config=configs/nope.py --workdir={}/run", "no file configs/nope.py ... use one of configs/cifar10.py"
    ),
    Case("main.py --config=configs --workdir={}/run", "no file configs; use one of"),
    Case("main.py --config=configs/quickstart.py:nope --workdir={}/run", "unknown objective 'nope': use one of sgflow"),
    # Its fields.
    Case(f"{QUICK} --config.train.nosuch=0", "config.train has no field nosuch ... num_steps"),
    Case(f"{QUICK} --config.train.num_steps=abc", "num_steps=abc: use an integer"),
    Case(f"{QUICK} --config.train.num_steps=0", "config.train.num_steps is 0: use an integer from 1"),
    Case(f"{QUICK} --config.train.max_abs_loss=nan", "--config.train.max_abs_loss=nan: use a finite number"),
    Case(f"{QUICK} --config.data.batch_size=63", "not divisible by 2 ... use a multiple of 2"),
    Case(f"{QUICK} --config.data.name=mnist", "unknown data set 'mnist': use one of digits"),
    Case(f"{QUICK} --config.data.name=mixture1d", "'unet', for images, but the data are points (1,): use mlp"),
    Case(f"{POINTS} --config.data.flip", "points and cannot be flipped: set data.flip to False"),
    Case(f"{QUICK} --config.objective.name=esd", "esd has no option correction ... its options are"),
    Case(f"{QUICK} --config.teacher.workdir={{}}/none", "none has no checkpoint: train first, or name"),
    Case(
        "main.py --config=configs/cifar10.py --workdir={}/run --config.data.data_dir={}/none",
        "cifar10 is not prepared in ... none ... make data",
    ),
    # The user's own images.
    Case(IMAGES.replace("{}/mine", ""), "config.data.dir is '': give the folder, .npz or .zip"),
    Case(IMAGES, "which does not exist: give the place"),
    Case(IMAGES, "mine has no images: put PNG, JPEG or WebP files there", {"mine": None}),
    Case(IMAGES, "mine has no images", {"mine/notes.txt": "x"}),
    Case(IMAGES, "both beside and inside", {"mine/a.png": "x", "mine/b/a.png": "x"}),
    Case(IMAGES, "mine', a file of another kind: give a folder", {"mine": "x"}),
    Case(f"{IMAGES}.zip", "mine.zip cannot be read (File is not a zip file): make it again", {"mine.zip": "x"}),
    Case(f"{IMAGES}.npz", "mine.npz cannot be read", {"mine.npz": "x"}),
    Case(
        f"{IMAGES} --config.data.size=50", "size is 50, which cannot be halved to 16 ... use 48 or 52", {"mine": None}
    ),
    Case(f"{IMAGES} --config.data.size=0", "size is 0: images may have images of any size, so give one, like 64"),
    Case(f"{IMAGES} --config.data.name=digits", "data.dir and test_share are for the data set images, not digits"),
    Case(f"{IMAGES} --config.data.name=tfds:nope --config.data.dir=", "tfds:nope is not prepared in"),
    Case(
        f"{QUICK} --config.objective.guidance=2", "objective.guidance is 2.0: use 1, or labels and model.label_dropout"
    ),
    Case(f"{QUICK} --config.model.label_dropout=0.1", "label_dropout is 0.1: use ... 0 without labels"),
    # The directory of a run.
    Case(NEW, "not writable ... use another --workdir", {"run": "a file"}),
    Case(NEW, "not writable ... use another --workdir", {"run/checkpoints": "a file"}),
    Case(NEW, "config.json is damaged: remove it", {"run/config.json": "{"}),
    Case(NEW, "config.json is damaged: remove it", {"run/config.json": "[]"}),
    Case(NEW, "config.json is damaged: remove it", {"run/config.json": b"\xff\xfe"}),
    Case(NEW, "config.json cannot be read ... use another --workdir", {"run/config.json": None}),
    Case(f"{LINE} --config.seed=3", "another configuration ... seed (there 0, here 3): give the same values"),
    Case(f"{LINE} --config.train.num_steps=4", "checkpoint of step 6 ... num_steps is 4: raise it"),
    Case(f"{LINE} --config.teacher.workdir={{digits}}", "teacher.workdir (there '', here"),
    Case(
        f"{NEW} --config.teacher.workdir={{digits}}",
        "trained on examples of shape (8, 8, 1), not (1,): use another run",
    ),
    # --mode=import and export.
    Case("main.py --mode=import --workdir={}/run", "--weights is missing"),
    Case("main.py --mode=import --weights={}/a.pth", "--workdir is missing"),
    Case("main.py --mode=import --weights={}/a.pth --workdir={}/run", "a.pth is missing: download it"),
    Case(f"{LINE} --mode=import --weights={{}}/a.pth", "has files already (checkpoints)"),
    Case("main.py --mode=import --weights={}/a --workdir={}/run --dry_run", "--dry_run is for training"),
    Case(f"{LINE} --mode=export", "--out is missing"),
    Case(f"{LINE} --mode=export --out={{}}/x.npz", "ends in .safetensors (parameters) or .stablehlo (a sampler)"),
    Case(f"{LINE} --mode=export --out={{}}/x.stablehlo --steps=1,2", "give one number of steps"),
    # --mode=sample.
    Case(f"{LINE} --mode=sample", "--out is missing"),
    Case(f"{SAMPLE} --dry_run", "--dry_run is for training: leave it out"),
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
    # The evaluation.
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
    Case(REFERENCE.replace("quickstart", "nope"), "no file configs/nope.py"),
    Case(f"{REFERENCE} --split=test", "no split 'test': use train"),
    Case(f"{REFERENCE} --config.eval.features=vgg", "unknown features 'vgg': use one of pixels"),
    Case(f"{REFERENCE} --features=inception --inception_weights={{}}/none", "none is missing: download it"),
    Case(f"{REFERENCE} --selfcheck --num_samples=3", "3 is not integer >= 4"),
    Case(f"{SCORE} --samples={{}}/none", "--samples is ... none', which does not exist: give the place"),
    Case(f"{SCORE} --samples={{}} --resize=tf1,nope", "--resize=tf1,nope: use tf1 or half_pixel"),
    Case(f"{SCORE} --samples={{}} --out={{}}/taken/x", "taken is a file: give a directory", {"taken": "a file"}),
    Case(REPORT, "--out is missing"),
    Case("-m eval.report --workdir={}/run --out={}/page", "no measured rows: run python -m eval.fid_sweep"),
    Case(f"{REPORT} --out={{}}/taken", "taken is a file: give a directory", {**MEASURED, "taken": "a file"}),
    Case(f"{REPORT} --out={{}}/page", "config.json is damaged: remove it", {**MEASURED, "run/config.json": "{"}),
    Case(
        f"{REPORT} --out={{}}/page",
        "invalid line ([]): remove the line",
        {**MEASURED, "run/metrics.jsonl": "[]"},
    ),
    Case("-m eval.map_error --workdir={}/run", "no checkpoint: train first"),
    Case("-m eval.map_error --workdir={digits}", "map of digits is unknown: use mixture1d"),
    Case(f"{STATIONARITY} --objectives=esd(nope=1)", "esd has no option 'nope': use "),
    Case(f"{STATIONARITY} --laws=nope", "--laws=nope: use mixture, gaussian"),
    Case(f"{STATIONARITY} --row={{", "is not JSON ... copy the settings from a file under rows/"),
    Case(f"{STATIONARITY} --row=[]", "objective is None; use a value of type str"),
    Case(f"{TOY} --num_steps=150", "--num_steps=150: use a multiple of 100"),
    Case(f"{TOY} --budgets=", "--budgets=: use steps, seconds"),
    Case(TOY, "out is a file: give a directory", {"out": "a file"}),
    Case(f"{ABLATIONS} --toy_steps=7", "--toy_steps=7: use a multiple of 50"),
    Case(f"{ABLATIONS} --seeds=-1", "--seeds=-1: use integers from 0"),
    Case("-m eval.table1 --results={}", "stationarity.json cannot be read ... run python -m eval.stationarity"),
    # Inputs that once ended in a traceback, were misread, or were rejected only after the work.
    Case("main.py", "--config is missing: give --config="),
    Case("-m eval.reference", "--config is missing"),
    Case("main.py --config= --workdir={}/run", "--config is missing: give --config=FILE.py"),
    Case(
        MINE,
        "mine.py fails with SystemExit: 3",
        {"mine.py": "raise SystemExit(3)"},
    ),
    Case(f"{QUICK} --flagfile={{}}/none", "none ... see --help"),
    Case(f"{QUICK} --config.train.num_steps", "Missing value for flag --config.train.num_steps: see --help"),
    Case(f"{QUICK} --config.mesh.data=3", "mesh.data is 3 ... product is 1"),
    Case(
        "main.py --config=configs/imagenet64.py --workdir={}/run --config.data.data_dir={}/none",
        "tfds:imagenet_resized/64x64 is not prepared in ... none ... make data",
    ),
    Case(NEW, "config.json is damaged: remove it", {"run/config.json": "null"}),
    Case(NEW, "config.json is damaged: remove it", {"run/config.json": "[" * 9999}),
    Case(NEW, "differs in ... teacher.step (there 'absent', here 0)", {"run/config.json": '{"seed": 0}'}),
    Case(NEW, "metrics.jsonl is not a file: remove it", {"run/metrics.jsonl": None}),
    Case(NEW, "events.jsonl is not a file", {"run/events.jsonl": None}),
    Case(NEW, "lock is not a file", {"run/lock": None}),
    Case(NEW, "tensorboard is not a directory", {"run/tensorboard": "a file"}),
    Case(NEW, "previews is not a directory", {"run/previews": "a file"}),
    Case(f"{LINE} --mode=sample --out={{}}/{'x' * 250}.npz", "cannot be written (File name too long): use another"),
    Case(f"{LINE} --mode=sample --out={{}}/taken/x.npz", "in a directory that exists", {"taken": "a file"}),
    Case(f"{SAMPLE} --steps=99999999999999999999", "--steps=99999999999999999999: use integers from 1 to"),
    Case(f"{SAMPLE} --steps=2000000000", "cannot spend 2000000000 network calls ... up to 1000000"),
    Case(f"{SAMPLE} --num_samples=99999999999999", "num_samples ... 10000000"),
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
    Case(f"{REFERENCE} --num_samples=10", "--num_samples needs --selfcheck: add it, or leave out --num_samples"),
    Case(f"{REPORT} --out={{}}/page", "index.html is a directory: use another", {**MEASURED, "page/index.html": None}),
    Case(f"{REPORT} --out={{}}/page", "quality.png is a directory", {**MEASURED, "page/quality.png": None}),
    Case("-m eval.map_error --workdir={line} --num_samples=99999999999999", "num_samples ... 10000000"),
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
    Case(f"{TOY} --seconds=nan", "--seconds=nan: use a finite number"),
    Case(f"{TOY} --seeds=0,99999999999", "use integers from 0 to 2147483647"),
    Case(f"{ABLATIONS} --seeds=0,{'9' * 5000}", "use integers from 0 to 2147483647"),
    Case(
        f'{TOY} --row={{"data":"mixture1d","objective":"esd","budget":"steps","amount":1.5,"seed":0}}',
        "amount=1.5: use a multiple of 100",
    ),
    Case("-m eval.compare --out={}/out", "--config is missing: give --config="),
    Case(f"{COMPARE} --budget=epochs:3", "--budget=epochs:3: use images:AMOUNT, steps:AMOUNT, seconds:AMOUNT, flops:"),
    Case(
        f"{COMPARE} --first=0.5 --objectives=flow_matching", "begins with flow_matching: leave it out of --objectives"
    ),
    Case(f"{COMPARE} --steps=0,1", "--steps=0,1: use integers from 1"),
    Case(f"{COMPARE} --objectives=sgflow(estimator=split) --config.data.batch_size=6", "data.batch_size"),
    Case(f"{COMPARE} --objectives=esd", "out is a file: give a directory", {"out": "a file"}),
    Case("-m eval.table1 --doc={}/none.md", "none.md cannot be read ... name a file with the line"),
    Case("-m eval.table1 --doc={}/a.md", "--doc has no place for the table", {"a.md": "text"}),
    Case("-m eval.table1 --config.model.nosuch=3", "config.model has no field nosuch"),
    Case("-m eval.table1 --config.model.channels=3", "channels is 3: use a multiple of 4"),
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
    # Escape sequences in a file do not reach the terminal.
    Case(f"{REPORT} --out={{}}/page", '("?31m"): remove the line', {**MEASURED, "run/metrics.jsonl": '"\x9b31m"'}),
]


@pytest.fixture(scope="module")
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bad_input_is_one_line_and_code_2_and_writes_nothing(case, server, tmp_path, request):
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

    assert code == 2, stderr
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and stderr.endswith("\n"), stderr
    said = stderr
    for part in case.says.split(" ... "):
        _, found, said = said.partition(part)
        assert found, f"{part!r} is not in {stderr}"
    assert _contents(given) == before
