PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help demo test chaos bench lint
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Score 336,776 real flights, end to end
	@$(BIN)/nightshift demo

test: $(VENV)/.test ## Run the tests, except heavy ones and those of libraries that are missing
	@$(BIN)/pytest -n 2 --dist loadfile

chaos: $(VENV)/.test ## Break everything on purpose, for 20 minutes; a part of it: make chaos ARGS=--few
	@PYTHONPATH=tests/support $(BIN)/python -m tests.chaos $(ARGS)

bench: $(VENV)/.all $(VENV)/.test $(VENV)/bench/.done ## Compare with peers; sizes: make bench ARGS='--rows 500000'
	@$(BIN)/python benchmarks/compare.py $(ARGS)

lint: $(VENV)/.lint ## Check style, types, imports between packages, sizes and words
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && $(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache
	@.ci/house

$(VENV)/.%: pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time this takes a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[$*]'
	@touch $@

$(VENV)/bench/.done: benchmarks/requirements.txt  # some of the peers hold pandas back
	@echo "Installing the peers into $(VENV)/bench; the first time this takes some minutes."
	@$(PYTHON) -m venv $(VENV)/bench
	@$(VENV)/bench/bin/pip install -qq --disable-pip-version-check -r $<
	@touch $@
