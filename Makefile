.PHONY: quickstart test lint data
PYTHON ?= python3
BIN := .venv/bin

quickstart: .venv/installed
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=runs/quickstart
	$(BIN)/python -m eval.fid_sweep --workdir=runs/quickstart --steps=1,2,4,10

test: .venv/installed
	$(BIN)/python -m pytest -n 2

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The first download and preparation of CIFAR-10, into TFDS_DATA_DIR or TFDS's default directory.
data: .venv/prepare
	$(BIN)/python -c 'import tensorflow_datasets as tfds; tfds.builder("cifar10", file_format="array_record").download_and_prepare()'

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

.venv/prepare: requirements-prepare.txt .venv/installed
	$(BIN)/pip install --disable-pip-version-check -q -r requirements-prepare.txt
	touch $@
