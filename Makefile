# Two commands matter to a newcomer: `make demo` and `make test`. Each sets up what it needs.
# PYTHON=python3.12 chooses another interpreter; ARGS="pretrain.steps=300" goes to the demo.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
MASKWRIGHT := $(BIN)/maskwright
PYTEST := $(BIN)/python -m pytest
# Named on the command line as well as pinned, so that pip takes a CPU build wherever it sees one.
TORCH := $(shell grep '^torch==' constraints.txt)

QUICK := not slow and not gpu and not browser

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test test-all test-slow test-faults test-browser check lint types layers docs bench bench-gpu format clean

help:  ## this list
	@echo "make TARGET; every target sets up .venv first if that is due"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## .venv with pinned libraries; again when pyproject.toml or constraints.txt change

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not that." >&2; \
	  echo "Name another one: make setup PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { \
	  echo "No environment could be made; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "installing into $(VENV): about 2.5 GB on disk, a few minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt $(TORCH) --editable '.[corpus,s3,ray,train,hf,dev,docs]'
	@DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt $(TORCH) --editable '.[deepspeed]' || \
	  echo "DeepSpeed could not be installed; what needs it is skipped in tests" >&2
	@touch $@

demo: $(STAMP)  ## raw text to tokenizer, encoder, classifier and report, in runs/demo
	$(MASKWRIGHT) demo $(ARGS)

test: $(STAMP)  ## the quick tests
	$(PYTEST) -m "$(QUICK)"

test-all: $(STAMP)  ## every test that this machine can run
	$(PYTEST) -m ""

test-slow: $(STAMP)  ## the tests that take more than a few seconds
	$(PYTEST) -m "slow and not gpu"

test-faults: $(STAMP)  ## every test of several processes, kills, full disks and cut cables
	$(PYTEST) -m "(fault or distributed) and not gpu"

test-browser: $(STAMP)  ## the report in a headless Chromium; skipped where there is none
	$(PYTEST) -m "browser and not slow"

check: lint types layers docs test test-browser  ## what continuous integration runs

lint: $(STAMP)  ## ruff: format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)  ## mypy, strict, on src
	$(BIN)/mypy --strict src

layers: $(STAMP)  ## imports go downward only
	$(BIN)/lint-imports

docs: $(STAMP)  ## the documentation, into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(STAMP)  ## speed and memory against transformers; cost of the loader
	$(BIN)/python benchmarks/bench_pretrain_cpu.py
	$(BIN)/python benchmarks/bench_loader.py
	$(BIN)/python benchmarks/bench_scale.py

bench-gpu: $(STAMP)  ## speed on a CUDA device against the Trainer of transformers
	$(BIN)/python benchmarks/bench_gpu.py

format: $(STAMP)  ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove caches and built documentation; data, runs and .venv stay
	rm -rf site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
