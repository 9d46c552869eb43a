# Two commands: `make suite` replays every notebook on the embedded data set, `make test` runs the tests.
# Both make .venv first. The plain commands behind them stand in README.md.
# With LOCKED=1 .venv gets the files of requirements.lock, if the index has these very files for this platform.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= smoke
LOCKED ?=
BIN := $(VENV)/bin

.PHONY: suite test lint bench lock clean

suite: $(VENV)/suite.stamp
	$(BIN)/python -m kdhelpers suite --profile $(PROFILE)

# Up to four processes run the tests; two of them took 1.8 and 3.6 GB.
test: $(VENV)/dev.stamp
	$(MAKE) lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks all

$(VENV)/suite.stamp: requirements.txt requirements-package.txt requirements-export.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@[ -z "$(LOCKED)" ] || $(BIN)/python -m pip install --require-hashes --no-deps -r requirements.lock || \
		echo "requirements.lock: not installed, pip names above what differs; the ranges are installed instead"
	$(BIN)/python -m pip install -r requirements.txt -e .
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/suite.stamp
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

lock: $(VENV)/dev.stamp
	$(BIN)/python .ci/lock.py

clean:
	rm -rf notebooks/executed build *.egg-info .pytest_cache .ruff_cache
