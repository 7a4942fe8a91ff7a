# make demo    a simulated bank, end to end: the report is runs/demo/report.html
# make test    what CI checks: style, types, tests
# make audit   and this: licences and known vulnerabilities of all that is pinned
# make explorer    the page of the explorer, from explorer/ (needs Node 20.19+; what it builds is committed)
# make bench NAME=simbank    one benchmark
# Needs Python 3.11+ with venv, and nothing else; both make the environment in .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types audit explorer bench format clean

demo: $(READY)
	$(BIN)/clickintent demo --workspace runs/demo

test: lint types
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

audit: $(READY)
	$(BIN)/python tools/audit.py

explorer:
	cd explorer && npm ci --no-audit --no-fund && npm run build

bench: $(READY)
	$(BIN)/python benchmarks/$(NAME).py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clickintent needs Python 3.11 or newer; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .coverage
