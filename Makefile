.PHONY: quickstart report-demo test lint data
PYTHON ?= python3
BIN := .venv/bin

quickstart: .venv/installed
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=runs/quickstart
	$(BIN)/python -m eval.fid_sweep --workdir=runs/quickstart --steps=1,2,4,10

# Three objectives side by side: trained, swept, and one page, runs/demo/report/index.html.
DEMO := sgflow mean_flow flow_matching
comma := ,
DEMO_RUNS := $(subst $() ,$(comma),$(DEMO:%=runs/demo/%))
report-demo: .venv/installed
	for objective in $(DEMO); do \
	  $(BIN)/python main.py --config=configs/quickstart.py:$$objective --workdir=runs/demo/$$objective || exit 1; \
	done
	$(BIN)/python -m eval.fid_sweep --workdirs=$(DEMO_RUNS) --steps=1,2,4,10,50 --seeds=0,1,2
	$(BIN)/python -m eval.report --workdirs=$(DEMO_RUNS) --out=runs/demo/report

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
