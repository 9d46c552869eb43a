# Two commands: `make suite` replays every notebook on the embedded data set, `make test` runs the tests.
# Both make .venv first. The plain commands behind them stand in README.md.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= smoke
BIN := $(VENV)/bin

.PHONY: suite test lint bench clean

suite: $(VENV)/suite.stamp
	$(BIN)/python -m kdhelpers suite --profile $(PROFILE)

test: $(VENV)/dev.stamp
	$(MAKE) lint
	$(BIN)/python -m pytest

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks all

$(VENV)/suite.stamp: requirements.txt requirements-package.txt requirements-export.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt -e .
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/suite.stamp
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

clean:
	rm -rf notebooks/executed build *.egg-info .pytest_cache .ruff_cache
