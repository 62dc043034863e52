.PHONY: help quickstart report-demo test test-all soak lint audit build data
PYTHON ?= python3
BIN := .venv/bin

help:
	@echo 'make quickstart    install into .venv, train on digits, evaluate, plot: about 3 minutes on 2 cores'
	@echo 'make report-demo   train three objectives and compare them on one page: 6 to 8 minutes on 2 cores'
	@echo 'make data          download and prepare CIFAR-10 (DATASET=... for others); installs TensorFlow into .venv'
	@echo 'make test          run the quick tests, as CI does'
	@echo 'make test-all      run all tests, the slow ones too, as CI does once a week'
	@echo 'make lint          run ruff'
	@echo 'make build         put the package, a wheel, into dist/'
	@echo 'make audit         check the requirements for known vulnerabilities; needs the network'
	@echo 'make soak          kill a run 50 times and compare it with an undisturbed one: 15 minutes'
	@echo
	@echo 'Each command lists its options: python main.py --help, python -m eval.fid_sweep --help.'

quickstart: .venv/installed
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=runs/quickstart
	$(BIN)/python -m eval.fid_sweep --workdir=runs/quickstart --steps=1,2,4,10
	@echo
	@echo 'Digits in 1, 2, 4 and 10 steps from the same noise: runs/quickstart/previews/step_0001500.png'
	@echo 'Distance to the real digits against steps:          runs/quickstart/eval/fid_curve.png'
	@echo 'FD-classifier is the Frechet distance in the features of a digit classifier. Lower is better; two halves of'
	@echo 'the real digits are 0.5 apart.'

# Trains and sweeps three objectives and writes one page, runs/demo/report/index.html.
DEMO := sgflow mean_flow flow_matching
comma := ,
DEMO_RUNS := $(subst $() ,$(comma),$(DEMO:%=runs/demo/%))
report-demo: .venv/installed
	for objective in $(DEMO); do \
	  $(BIN)/python main.py --config=configs/quickstart.py:$$objective --workdir=runs/demo/$$objective || exit 1; \
	done
	$(BIN)/python -m eval.fid_sweep --workdirs=$(DEMO_RUNS) --steps=1,2,4,10,50 --seeds=0,1,2
	$(BIN)/python -m eval.report --workdirs=$(DEMO_RUNS) --out=runs/demo/report

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
test: .venv/installed
	$(PYTEST) -m 'not slow'

test-all: .venv/installed
	$(PYTEST)

# Kills a quick-start run 50 times and compares it with one left alone: 15 minutes on 2 cores.
soak: .venv/installed
	$(BIN)/python scripts/soak.py --kills=50 --out=docs/soak.txt

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

build: .venv/installed
	$(BIN)/python -m build --no-isolation

# Looks for known vulnerabilities in requirements.txt. Needs PyPI's advisories, which package mirrors lack. By default
# pip-audit skips packages it cannot look up and reports success; --strict makes it fail (code 3).
audit: .venv/audit/installed
	@log=$$(.venv/audit/bin/pip-audit --strict --progress-spinner=off -r requirements.txt 2>&1); code=$$?; \
	case "$$code $$log" in \
	  0*) echo "$$log" ;; \
	  *"Found "*" known vulnerabilit"*) echo "$$log"; exit 1 ;; \
	  *) echo "audit: nothing was checked, PyPI's advisories are unreachable: run it with network access" \
	    "($$(echo "$$log" | tail -n 1))" >&2; exit 3 ;; \
	esac

# Downloads and prepares CIFAR-10 into TFDS_DATA_DIR or TFDS's default directory. For ImageNet see docs/running.md.
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
