.PHONY: help quickstart report-demo test test-all soak lint audit data
PYTHON ?= python3
BIN := .venv/bin

help:
	@echo 'make quickstart    install into .venv, train on digits, measure, draw the curve: 2 to 4 minutes on 2 cores'
	@echo 'make report-demo   train three objectives and compare them on one page: 6 to 8 minutes on 2 cores'
	@echo 'make data          download and prepare CIFAR-10 (DATASET=... for others); installs TensorFlow into .venv'
	@echo 'make test          the tests, without the slow ones'
	@echo 'make test-all      all tests, as CI runs them'
	@echo 'make lint          ruff'
	@echo 'make audit         known vulnerabilities of the requirements; needs the network'
	@echo 'make soak          kill a run 50 times and compare it with an undisturbed one: 15 minutes'
	@echo
	@echo 'python main.py --help and python -m eval.fid_sweep --help show the commands behind them.'

quickstart: .venv/installed
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=runs/quickstart
	$(BIN)/python -m eval.fid_sweep --workdir=runs/quickstart --steps=1,2,4,10
	@echo
	@echo 'Digits in 1, 2, 4 and 10 steps from the same noise: runs/quickstart/previews/step_0001500.png'
	@echo 'Their distance to the real digits against steps:    runs/quickstart/eval/fid_curve.png'
	@echo 'FD-classifier is a Frechet distance in the features of a classifier of digits: 0.5 between halves of the real'
	@echo 'digits, lower is better.'

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
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

# A quick-start run killed 50 times, and one left in peace: a quarter of an hour on 2 cores.
soak: .venv/installed
	$(BIN)/python scripts/soak.py --kills=50 --out=docs/soak.txt

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Known vulnerabilities in what requirements.txt asks for. Needs the network: PyPI's advisories, which a mirror of its
# packages lacks. pip-audit skips what it cannot look up and calls the rest clean; --strict ends it instead (code 3).
audit: .venv/audit/installed
	@log=$$(.venv/audit/bin/pip-audit --strict --progress-spinner=off -r requirements.txt 2>&1); code=$$?; \
	case "$$code $$log" in \
	  0*) echo "$$log" ;; \
	  *"Found "*" known vulnerabilit"*) echo "$$log"; exit 1 ;; \
	  *) echo "audit: nothing was checked, PyPI's advisories are out of reach: run it where there is a network" \
	    "($$(echo "$$log" | tail -n 1))" >&2; exit 3 ;; \
	esac

# The first download and preparation of CIFAR-10, into TFDS_DATA_DIR or TFDS's default directory; README has the other
# data sets.
DATASET ?= cifar10
data: .venv/prepare
	$(BIN)/python -c 'import tensorflow_datasets as tfds; tfds.builder("$(DATASET)", file_format="array_record").download_and_prepare()'

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

.venv/audit/installed: .venv/installed
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --disable-pip-version-check -q 'pip-audit>=2.10,<3'
	touch $@

.venv/prepare: requirements-prepare.txt .venv/installed
	$(BIN)/pip install --disable-pip-version-check -q -r requirements-prepare.txt
	touch $@
