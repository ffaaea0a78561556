# Everything is installed into this checkout: .venv (Python), node_modules (Node), build (artefacts).
#
#   make demo       install, then run the main job on real input
#   make test       install, then run the tests that are not slow (all of them where CI=true)
#   make check      format, lint and types, then the tests: what has to pass before a commit
#   make contracts  compile the contracts with Brownie
#   make slither    analyse the contracts statically; fails on findings that nobody has explained
#   make coverage   run the contracts' tests, and trace which branches of the contracts they take; fails below 95 %
#   make mutants    change the contracts in small ways, in a copy; fails on a change that no test notices
#   make halmos     prove the symbolic checks of tests/forge/symbolic
#   make console    Brownie's console on a development chain
#   make lock       renew requirements.lock from pyproject.toml
#
# PYTHON=/path names the interpreter (3.11); PIP_FLAGS adds options to pip; PYTEST_ARGS adds options to pytest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?=
PIP_FLAGS ?=
PYTEST_ARGS ?=
PYTEST_MARKS ?= $(if $(filter true,$(CI)),,not slow)
export PYTHON PIP_FLAGS

PYTHON_INSTALLED := .venv/.installed
NODE_INSTALLED := node_modules/.installed
CONTRACTS_COMPILED := build/contracts/.compiled
SOLIDITY := $(shell find contracts -name '*.sol' 2>/dev/null)

# A virtual environment knows its own absolute path: one that was moved or copied here is made anew.
ifneq ($(shell cat $(PYTHON_INSTALLED) 2>/dev/null),$(CURDIR))
$(PYTHON_INSTALLED): FORCE
endif

# For the recipes only; `. tools/env.sh` does the same for a shell.
export SOLCX_BINARY_PATH := $(CURDIR)/tools/solc
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help install demo test check contracts slither coverage mutants halmos console lock FORCE

help:
	@sed -n 's/^#   make/make/p' Makefile

install: $(PYTHON_INSTALLED) $(NODE_INSTALLED)
	@:

$(PYTHON_INSTALLED): requirements.lock pyproject.toml
	@tools/install-python

$(NODE_INSTALLED): package.json package-lock.json
	@tools/install-node

$(CONTRACTS_COMPILED): $(SOLIDITY) brownie-config.yaml $(NODE_INSTALLED) $(PYTHON_INSTALLED)
	@tools/brownie compile
	@mkdir -p $(@D) && touch $@

contracts: $(CONTRACTS_COMPILED)

demo: install contracts
	@.venv/bin/interlock demo

# Brownie's pytest plugin compiles and loads the project at every start; it is for `tools/brownie test` alone.
test: install contracts
	@.venv/bin/python -m pytest -p no:pytest-brownie $(if $(PYTEST_MARKS),-m "$(PYTEST_MARKS)") $(PYTEST_ARGS)

check: install contracts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	@$(MAKE) --no-print-directory test

slither: install
	@.venv/bin/python tools/slither/run

# COVERAGE_ARGS: --least PERCENT, and what pytest is to run.
coverage: install contracts
	@.venv/bin/python tools/branches/run $(COVERAGE_ARGS)

# MUTANTS_ARGS: --sample, --seed, --minutes, --seconds, --only, --command.
mutants: install contracts
	@.venv/bin/python tools/mutants $(MUTANTS_ARGS)

halmos: install
	@.venv/bin/python tools/halmos/run

console: install
	@tools/brownie console

lock: $(PYTHON_INSTALLED)
	@tools/lock-python
