# Each target first creates .venv from requirements.txt if .venv is missing or older, so `make demo`
# works on a fresh machine. PYTHON=python3.12 selects another interpreter.

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
SHELL := bash
.SHELLFLAGS := -o pipefail -c
STUDY ?= gtsrb_short
COMMITTED := $(patsubst analysis/results/%/results.json,%,$(wildcard analysis/results/*/results.json))

.PHONY: demo demo-lungs test test-slow test-matrix soak data lint bench study report reports help
.DELETE_ON_ERROR:

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --requirement requirements.txt
	touch $@

demo: $(READY)  ## train 28 small networks on synthetic signs and write a report; needs no account
	test -d data/synthetic-signs || $(PY) -m lib.synthetic data/synthetic-signs --frames 4 --test-images 430
	$(PY) -m lib.agent demo_gtsrb
	$(PY) -m analysis.report demo_gtsrb --out runs/demo_gtsrb/analysis

demo-lungs: $(READY)  ## train 28 small U-Nets on synthetic radiographs and write a report
	test -d data/synthetic-chests || $(PY) -m lib.synthetic_chests data/synthetic-chests
	$(PY) -m lib.agent demo_unet
	$(PY) -m analysis.report demo_unet --out runs/demo_unet/analysis

study: $(READY)  ## run a study and write its report: make study STUDY=gtsrb_short
	$(PY) -m lib.agent $(STUDY)
	$(PY) -m analysis.report $(STUDY)

report: $(READY)  ## fetch new runs of STUDY, write its report, update README and docs
	$(PY) -m analysis.report $(STUDY)
	$(PY) -m analysis.readme

reports: $(READY)  ## regenerate all committed reports from their tables, update README and docs
	for study in $(COMMITTED); do \
	  $(PY) -m analysis.report analysis/results/$$study --again || exit 1; \
	done
	$(PY) -m analysis.readme

test: $(READY)  ## run the fast tests
	$(PY) -m pytest -m "not slow"

test-slow: $(READY)  ## run the slow tests
	$(PY) -m pytest -m slow

test-matrix: $(READY)  ## run the fast tests with the oldest, newest and Colab's library versions
	$(PY) -m tests.matrix

soak: $(READY)  ## disturb sweeps with random faults for ten minutes; SEED=3 selects other faults
	$(PY) -m tests.soak --seconds 600 --seed $(or $(SEED),0)

data: $(READY)  ## download, verify and unpack traffic signs and miniJSRT into data/
	$(PY) -m lib.download gtsrb data/GTSRB
	$(PY) -m lib.download minijsrt data/miniJSRT

lint: $(READY)  ## check code style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: $(READY)  ## measure speed and memory; takes ten minutes on an idle machine
	mkdir -p runs
	$(PY) -m tests.bench.training | tee runs/bench.jsonl
	$(PY) -m tests.bench.analysis | tee -a runs/bench.jsonl
	$(PY) -m tests.bench.table runs/bench.jsonl
