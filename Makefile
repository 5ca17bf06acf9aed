.PHONY: setup quickstart test lint format tiny
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
seed ?= 1

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# Trains a cold-started tiny vision-language model and writes its report; a few minutes on two cores.
quickstart: setup
	$(BIN)/mm-cpgd quickstart --seed $(seed)

test: setup
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Rebuilds the starting policy of the quickstart (mm_cpgd/tiny/assets), within an hour on two cores.
tiny: setup
	$(BIN)/mm-cpgd tiny build
