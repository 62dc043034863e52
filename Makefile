.PHONY: quickstart report-demo test soak lint audit data
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
