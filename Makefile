# On a fresh machine `make demo` or `make test` is all that one types: each target first makes .venv
# from requirements.txt when that is missing or older (PYTHON=python3.12 picks another interpreter).

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready

.PHONY: demo test test-slow data lint report help
.DELETE_ON_ERROR:

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --requirement requirements.txt
	touch $@

demo: $(READY)  ## train, fetch and report a small study on drawn signs, offline; about four minutes
	test -d data/synthetic-signs || $(PY) -m lib.synthetic data/synthetic-signs
	$(PY) -m lib.agent sweeps/demo_gtsrb.yaml
	$(PY) -m analysis.fetch runs/demo_gtsrb --sweep sweeps/demo_gtsrb.yaml --out runs/demo_gtsrb/analysis
	$(PY) -m analysis.report runs/demo_gtsrb/analysis --sweep sweeps/demo_gtsrb.yaml

test: $(READY)  ## run the tests but for the slow ones
	$(PY) -m pytest -m "not slow"

test-slow: $(READY)  ## run the slow tests
	$(PY) -m pytest -m slow

data: $(READY)  ## download, verify and unpack the official traffic-sign archives into data/GTSRB
	$(PY) -m lib.download data/GTSRB

lint: $(READY)  ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

STUDY ?= gtsrb_short
report: $(READY)  ## write STUDY's report and README block anew from its committed tables
	$(PY) -m analysis.report analysis/results/$(STUDY) --sweep sweeps/$(STUDY).yaml
	$(PY) -m analysis.readme analysis/results/$(STUDY) README.md
