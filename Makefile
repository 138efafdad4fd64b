# What a contributor types, and what .ci/run calls. `make help` lists it.

PYTHON ?= python3
TESTS ?= tests

.PHONY: help setup test fast weights lint types format fuzz check

help: ## List the targets.
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/'

setup: ## Install infer from this folder, so that changes count at once, with all that the tests need.
	$(PYTHON) -m pip install --editable ".[test]"

test: ## All tests. The real model is fetched once (about 94 MB).
	$(PYTHON) -m pytest -n auto $(TESTS)

fast: ## The tests that need no model.
	$(PYTHON) -m pytest -n auto -m "not weights" $(TESTS)

weights: ## The tests of the real model.
	$(PYTHON) -m pytest -m weights $(TESTS)

lint: ## Style, as CI checks it.
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

types: ## mypy, strict.
	$(PYTHON) -m mypy

format: ## Put the style right where ruff can.
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

fuzz: ## Attack what reads untrusted input, a minute for each target.
	$(PYTHON) -m fuzz all --seconds-each 60

check: lint types fast ## What a commit should pass.
