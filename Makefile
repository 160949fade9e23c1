# Everything from nothing but a Python 3.11: each target makes .venv first if it has to.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# The very first pip command must see the constraints: without the pin, an empty environment
# may take a torch build of several GB.
PIP_INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt
ROOMS := bench compiler kernels passes
# A test file stays in one process; each of them has one thread, so that they do not disturb another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
# Which mutants are drawn.
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo test test-all mutants lint layers types check kernels-oldest bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## build the MiniLM sentence encoder as int8 and compare it with the original
	$(BIN)/python -m strop.bench.demo

test: $(VENV)/.dev  ## the tests, without the slow ones
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.dev  ## all tests
	$(PYTEST)

mutants: $(VENV)/.dev  ## 200 slips made on purpose, by SEED, and which of them no quick test notices
	OMP_NUM_THREADS=1 $(BIN)/python -m strop.bench.mutants --seed $(SEED)

lint: $(VENV)/.dev  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

layers: $(VENV)/.dev  ## who may import whom
	$(BIN)/lint-imports

types: $(VENV)/.dev .types/strop  ## mypy, strict
	$(BIN)/mypy $(addprefix -p strop.,$(ROOMS))

check: lint layers types test  ## everything a change must pass

kernels-oldest: $(VENV)/.oldest  ## compile every kernel with the oldest Triton that is supported, and test it
	PYTHONPATH=$(VENV)/oldest $(BIN)/strop kernels
	PYTHONPATH=$(VENV)/oldest $(PYTEST) -m "not slow" tests/test_kernel*.py tests/test_triton*.py

bench: $(VENV)/.dev  ## the figures of RESULTS.md, measured on this machine
	$(BIN)/python -m strop.bench

clean:  ## remove everything that make made
	rm -rf $(VENV) .types build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing strop into $(VENV) (once; a few minutes)"
	$(PIP_INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing strop for development into $(VENV) (once; a few minutes)"
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.oldest: pyproject.toml | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/oldest 'triton==3.6.*'
	@touch $@

# Type checkers do not see setuptools' editable installs, so they get the same layout as links.
.types/strop: Makefile
	mkdir -p $@
	for room in $(ROOMS); do ln -sfn ../../$$room $@/$$room; done
	@touch $@
