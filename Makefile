# Everything here sets itself up in .venv: Python 3.11+, make and git are enough, as root or not.
.PHONY: demo test check bench faults clean
PYTHON ?= python3
BIN := .venv/bin
# Tests wait for disks and servers more than they compute.
JOBS ?= 4

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Datavern needs Python 3.11 or later; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]' --group dev
	@touch $@

.venv/bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group bench
	@touch $@

demo: .venv/ready
	@$(BIN)/datavern demo

test: .venv/ready
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/bench
	$(BIN)/python -m benchmarks

faults: .venv/ready
	$(BIN)/python -m pytest tests/faults tests/engines/redis/test_redis_line.py tests/engines/mongodb/test_mongodb_faults.py --faults=long

clean:
	rm -rf .venv demo demo-[0-9]* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
