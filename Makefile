# Everything runs in .venv, which is made on first use and again when pyproject.toml changes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-reliability bench docs check format clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## create .venv and install the package with its development tools

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## adapt a model to the built-in benchmark (minutes on a CPU), into runs/demo
	$(BIN)/python -m acclimate demo --out runs/demo

test: $(STAMP)  ## run all tests, of the kills the quick part
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not reliability" -n auto --maxprocesses 8 --dist worksteal --durations 20

test-reliability: $(STAMP)  ## kill runs everywhere and compare how they end, to the bit (minutes)
	$(BIN)/python -m pytest tests/test_reliability.py

bench: $(STAMP)  ## how fast it is beside what the arithmetic allows (minutes, on an idle machine), into benchmarks/results.json
	$(BIN)/python -m benchmarks.speed

docs: $(VENV)/.docs  ## the documentation as pages, into docs/_build/html
	$(BIN)/python -m sphinx -E -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

check: $(STAMP)  ## lint, formatting, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --summarize-errors
	$(BIN)/typos

format: $(STAMP)  ## put imports and formatting in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and build outputs; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis docs/_build
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
