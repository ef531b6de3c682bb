# Every target prints the command it runs; `make help` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)

.PHONY: help install
help: ## This list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(INSTALLED) ## The locked environment, in .venv
$(INSTALLED): requirements.lock
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: run make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@touch $@

.PHONY: demo up clean
demo: $(INSTALLED) ## One week of real flights: landed, trained on, predicted, judged. Minutes, on this machine only
	$(BIN)/python -m demo run

up: $(INSTALLED) ## The same Airflow to look around in, until Ctrl-C
	$(BIN)/python -m demo up

clean: $(INSTALLED) ## Removes .local: what `make demo` and `make up` left behind
	$(BIN)/python -m demo clean
