# On a fresh machine `make demo` or `make test` is all that one types: each target first makes .venv
# from requirements.txt when that is missing or older (PYTHON=python3.12 picks another interpreter).

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
SHELL := bash
.SHELLFLAGS := -o pipefail -c

.PHONY: demo test test-slow data lint bench report help
.DELETE_ON_ERROR:

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --requirement requirements.txt
	touch $@

demo: $(READY)  ## train, fetch and report two small studies on drawn signs and chests, offline
	test -d data/synthetic-signs || $(PY) -m lib.synthetic data/synthetic-signs
	test -d data/synthetic-chests || $(PY) -m lib.synthetic_chests data/synthetic-chests
	for study in demo_gtsrb demo_unet; do \
	  $(PY) -m lib.agent sweeps/$$study.yaml && \
	  $(PY) -m analysis.fetch runs/$$study --sweep sweeps/$$study.yaml --out runs/$$study/analysis && \
	  $(PY) -m analysis.report runs/$$study/analysis --sweep sweeps/$$study.yaml || exit 1; \
	done

test: $(READY)  ## run the tests but for the slow ones
	$(PY) -m pytest -m "not slow"

test-slow: $(READY)  ## run the slow tests
	$(PY) -m pytest -m slow

data: $(READY)  ## download, verify and unpack the traffic signs and miniJSRT into data/
	$(PY) -m lib.download gtsrb data/GTSRB
	$(PY) -m lib.download minijsrt data/miniJSRT

lint: $(READY)  ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: $(READY)  ## measure speed and memory, ten minutes on an idle machine
	mkdir -p runs
	$(PY) -m tests.bench.training | tee runs/bench.jsonl
	$(PY) -m tests.bench.analysis | tee -a runs/bench.jsonl
	$(PY) -m tests.bench.table runs/bench.jsonl

STUDY ?= gtsrb_short
report: $(READY)  ## write STUDY's report and README block anew from its committed tables
	$(PY) -m analysis.report analysis/results/$(STUDY) --sweep sweeps/$(STUDY).yaml
	$(PY) -m analysis.readme analysis/results/$(STUDY) README.md
