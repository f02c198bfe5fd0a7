# Every target makes what it needs: a fresh checkout, Python 3.11 or newer and make are enough.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
CODE   := constitution prompts judge train preceptor tests

.PHONY: quickstart test test-wheel check golden clean

quickstart: $(VENV)/.train  ## the main job on the embedded default: no key, no network, no GPU
	$(BIN)/preceptor quickstart

test: $(VENV)/.dev  ## every test
	$(BIN)/python -m pytest

test-wheel: $(VENV)/.dev  ## the built wheel in an empty environment, in another folder
	$(BIN)/python tests/wheel.py

check: $(VENV)/.dev  ## ruff and mypy strict
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

golden: $(VENV)/.dev  ## write the golden files anew; argue the change in the commit
	GOLDEN=write $(BIN)/python -m pytest -q -m golden

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[train]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[train,dev]'
	touch $@ $(VENV)/.train
