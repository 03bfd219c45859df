# make demo, make test, make lint, make types. They make .venv when it is missing or its pins have changed.

# Any arguments of pip that install torch 2.13.0, such as a build for your GPU (see README.md).
TORCH ?= torch==2.13.0
# Extra words for pytest: make test ARGS="tests/model -x"
ARGS ?=
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# Processes of the test suite: one more than cores, since some tests wait for servers.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(8, 1 + (os.cpu_count() or 1)))')

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types clean

demo: .venv/installed  ## ask the model in the package about the pictures in examples/images
	$(BIN)/python examples/ask_pictures.py

test: .venv/installed-dev  ## the whole test suite
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

lint: .venv/installed-dev  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev  ## static types of src
	$(BIN)/mypy

clean:  ## forget the environment
	rm -rf .venv

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "NEO needs Python 3.11 or newer: install it, or name it with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

# torch first and pinned: left to itself pip would take its newest build, gigabytes of CUDA libraries included.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) $(TORCH)
	$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps lmms-eval  # what it needs of its requirements is in our extra lmms-eval
	@touch $@
