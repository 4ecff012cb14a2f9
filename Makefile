# hmnet-pipe. On a fresh machine with Python 3.11+, make and a package index:
#   make demo   creates .venv, installs, runs the whole pipeline offline and prints the result
#   make test   creates .venv, installs, checks style and types, and runs the tests
# Both are cheap to repeat.

PYTHON ?= python3
VENV   ?= .venv
RUN    ?= runs/demo

BIN := $(VENV)/bin
# The install is a file target: made again only when what it depends on changes.
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo demo-weights test lint types wheel clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

install: $(INSTALLED)  ## create .venv with the tested versions

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("hmnet-pipe needs Python 3.11 or later: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## the main job, offline: text-only against HMNeT on a generated corpus
	$(BIN)/hmnet-pipe demo $(RUN)

demo-weights: $(INSTALLED)  ## train the demonstration's detector and backbone again (about 35 minutes)
	$(BIN)/python -m hmnet_pipe.stages.demo.train_weights stages/demo/demo_fasterrcnn.safetensors

test: lint types  ## style, types and tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A checkout's folder name need not be an identifier, so the types of an installed copy are checked.
types: $(INSTALLED)
	rm -rf build/types
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/types .
	MYPYPATH=build/types $(BIN)/mypy -p hmnet_pipe

wheel: $(INSTALLED)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## remove build products, not runs
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
