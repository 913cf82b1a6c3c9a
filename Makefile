# Two commands on a fresh machine: `make demo`, `make test`. Nothing is needed but Python >= 3.10.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
SEEDS ?= 100
FROM ?= 0
JOBS ?= 1
PLANTED ?=

.PHONY: demo test properties simulate check format bench constraints clean
.DEFAULT_GOAL := help

help:
	@echo "make demo                            the whole product on stand-ins, with the Dagster UI"
	@echo "make demo ARGS='--once --events 200' the same, ends by itself"
	@echo "make test                            all tests (PostgreSQL and real processes included)"
	@echo "make properties                      laws and fuzz, thousands of examples each"
	@echo "make simulate SEEDS=1000             that many simulated stories (FROM=0 JOBS=2 PLANTED=1)"
	@echo "make check                           ruff, pyright, import-linter"
	@echo "make bench                           the promises, measured (ARGS='idle ack': these parts)"
	@echo "make format | constraints | clean"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/kommo-airtable-sync demo $(ARGS)

# Tests of real processes mostly wait: two files at a time, after the others, which do not.
test: $(STAMP)
ifeq ($(strip $(ARGS)),)
	@failed=0; \
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --ignore tests/process || failed=1; \
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/process || failed=1; \
	exit $$failed
else
	$(BIN)/python -m pytest $(ARGS)
endif

properties: $(STAMP)
	HYPOTHESIS_PROFILE=thousands $(BIN)/python -m pytest tests/core tests/fuzz --timeout 1800 $(ARGS)

simulate: $(STAMP)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS) \
		$(if $(PLANTED),--planted) $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m tests.bench $(ARGS)

# Exact versions, for every supported Python: names and versions only.
constraints: $(STAMP)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --upgrade --extra dev \
		--no-header --no-annotate --no-emit-index-url --output-file constraints.txt pyproject.toml
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .demo .bench .dagster_home build dist *.egg-info
