"""Bad input to training: exit code 2, one line of fault and remedy, and nothing written."""

import pytest

from tests.bad_input import LINE, NEW, Case

QUICK = "main.py --config=configs/quickstart.py --workdir={}/run"
IMAGES = "main.py --config=configs/images.py --workdir={}/run --config.data.dir={}/mine"
POINTS = "main.py --config=configs/mixture1d.py --workdir={}/run"
MINE = "main.py --config={}/mine.py --workdir={}/run"

CASES = [
    # Flags.
    Case("main.py", "--config is missing: give --config="),
    Case("main.py --workdir={}/run", "--config is missing: give --config="),
    Case("main.py --config= --workdir={}/run", "--config is missing: give --config=FILE.py"),
    Case("main.py --config=configs/quickstart.py", "--workdir is missing: give --workdir="),
    Case("main.py --config=configs/quickstart.py --workdir=", "--workdir is missing"),
    Case("main.py --config=configs/quickstart.py --workdir=gs://bucket/run", "--workdir=gs://bucket/run is an address"),
    Case(f"{QUICK} --config.data.data_dir=gs://bucket", "data_dir=gs://bucket is an address (gs)"),
    Case(f"main.py --config={'x' * 300} --workdir={{}}/run", "there is no file xxx"),
    Case(f"{QUICK} --nosuch=1", "nosuch ... --help"),
    Case(f"{QUICK} stray", "unexpected argument 'stray' ... --name=value"),
    Case(f"{QUICK} --mode=play", "<train|sample|import|export>"),
    Case(f"{QUICK} --coordinator=localhost:1", "give all three, as --coordinator=HOST:PORT"),
    Case(f"{QUICK} --coordinator=localhost --num_processes=1 --process_id=0", "give all three"),
    Case(f"{QUICK} --coordinator=localhost:1 --num_processes=2 --process_id=2", "on each, --process_id=0 to N-1"),
    Case(f"{QUICK} --process_id=x", "process_id=x ... see --help"),
    Case(f"{QUICK} --flagfile={{}}/none", "none ... see --help"),
    Case(f"{QUICK} --config.train.num_steps", "Missing value for flag --config.train.num_steps: see --help"),
    # The file of the configuration.
    Case(
        "main.py --config=configs/nope.py --workdir={}/run", "no file configs/nope.py ... use one of configs/cifar10.py"
    ),
    Case("main.py --config=configs --workdir={}/run", "no file configs; use one of"),
    Case("main.py --config=configs/quickstart.py:nope --workdir={}/run", "unknown objective 'nope': use one of sgflow"),
    Case(
        MINE,
        "mine.py fails with SystemExit: 3",
        {"mine.py": "raise SystemExit(3)"},
    ),
    # Its fields: one of each kind; test_fields and test_flag have all.
    Case(f"{QUICK} --config.train.nosuch=0", "config.train has no field nosuch ... num_steps"),
    Case(f"{QUICK} --config.train.num_steps=abc", "num_steps=abc: use an integer"),
    Case(f"{QUICK} --config.train.num_steps=0", "config.train.num_steps is 0: use an integer from 1"),
    Case(f"{QUICK} --config.train.max_abs_loss=nan", "--config.train.max_abs_loss=nan: use a finite number"),
    Case(f"{QUICK} --config.data.batch_size=63", "not divisible by 2 ... use a multiple of 2"),
    Case(f"{QUICK} --config.data.name=mnist", "unknown data set 'mnist': use one of digits"),
    Case(f"{QUICK} --config.data.name=mixture1d", "'unet', for images, but the data are points (1,): use mlp"),
    Case(f"{POINTS} --config.data.flip", "points and cannot be flipped: set data.flip to False"),
    Case(
        f"{QUICK} --config.objective.name=esd --config.objective.correction=x",
        "objective or network has no such option",
    ),
    Case(
        "main.py --config=configs/published/sgflow_cifar10.py --config.model.preconditioning=edm --workdir={}/run",
        "model.preconditioning is 'edm': use none, as sgflow trains at two times",
    ),
    Case(f"{QUICK} --config.objective.name=esd", "esd has no option correction ... its options are"),
    Case(f"{QUICK} --config.teacher.workdir={{}}/none", "none has no checkpoint: train first, or name"),
    Case(
        "main.py --config=configs/cifar10.py --workdir={}/run --config.data.data_dir={}/none",
        "cifar10 is not prepared in ... none ... make data",
    ),
    Case(
        f"{QUICK} --config.objective.guidance=2", "objective.guidance is 2.0: use 1, or labels and model.label_dropout"
    ),
    Case(f"{QUICK} --config.model.label_dropout=0.1", "label_dropout is 0.1: use ... 0 without labels"),
    Case(f"{QUICK} --config.mesh.data=3", "mesh.data is 3 ... product is 1"),
    Case(
        "main.py --config=configs/imagenet64.py --workdir={}/run --config.data.data_dir={}/none",
        "tfds:imagenet_resized/64x64 is not prepared in ... none ... make data",
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
    Case(NEW, "config.json is damaged: remove it", {"run/config.json": "null"}),
    Case(NEW, "config.json is damaged: remove it", {"run/config.json": "[" * 9999}),
    Case(NEW, "differs in ... teacher.step (there 'absent', here 0)", {"run/config.json": '{"seed": 0}'}),
    Case(NEW, "metrics.jsonl is not a file: remove it", {"run/metrics.jsonl": None}),
    Case(NEW, "events.jsonl is not a file", {"run/events.jsonl": None}),
    Case(NEW, "lock is not a file", {"run/lock": None}),
    Case(NEW, "tensorboard is not a directory", {"run/tensorboard": "a file"}),
    Case(NEW, "previews is not a directory", {"run/previews": "a file"}),
]


@pytest.mark.parametrize("case", CASES, ids=Case.id)
def test_bad_input_is_one_line_and_code_2_and_writes_nothing(case, outcome):
    assert outcome.code == 2 and case.is_told(outcome.stderr) and not outcome.changed, outcome
