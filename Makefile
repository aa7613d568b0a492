# `make` says what there is. PYTHON chooses the interpreter of a new environment, VENV its folder, ARGS
# adds arguments: make quickstart ARGS="--config.seed=1", make test ARGS="-k losses".
VENV ?= .venv
ARGS ?=
PY := $(VENV)/bin/python
export VENV

.DEFAULT_GOAL := help
.PHONY: help venv demo quickstart test test-fast lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

venv: ## make or update the virtual environment that the others run in
	@sh scripts/setup.sh

demo: venv ## swaps, an interpolation and ranked lists from stored weights; writes runs/demo
	$(PY) -m dgnet_jax.demo $(ARGS)

quickstart: venv ## draw a small data set, train on it, evaluate; writes runs/quickstart
	$(PY) launch.py --config=configs/quickstart.py:l1_rmse --workdir=runs/quickstart $(ARGS)

test: venv ## run every test, by WORKERS (2) processes at once
	@sh scripts/test.sh $(ARGS)

test-fast: venv ## run the tests that are not marked slow
	$(PY) -m pytest -m "not slow" $(ARGS)

lint: venv ## check style, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy dgnet_jax configs launch.py benchmarks

clean: ## remove caches and build products; keeps the environment and runs/
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find dgnet_jax configs tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
