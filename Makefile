# Everything a person or CI runs. Needs Python 3.11 or newer, make and a package index; makes .venv/ by itself.
PYTHON  ?= python3
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
# --no-deps and wheels only: what is installed is exactly what the lock lists, and nobody's build pulls in more.
LOCKED  := $(PIP) install --no-deps --only-binary :all: --require-hashes
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
           --generate-hashes --no-annotate --no-emit-package torch --constraint requirements/torch.txt \
           --custom-compile-command "make lock" pyproject.toml

# Idle OpenMP threads sleep instead of spinning: spinning stalls every parallel operation when cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all unit lint format docs lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.project ## find a robust ticket of a real model, attack it beside its controls, print one card
	@$(BIN)/hardtack demo --out runs/demo

test: lint unit ## lint, then every test that is not marked slow (what CI runs)

test-all: lint ## lint, then every test, the slow ones too
	@$(TESTS)

unit: $(VENV)/.dev ## only the tests that are not marked slow; make unit ARGS="tests/tasks -x" narrows them
	@$(TESTS) -m "not slow"

# One thread a worker: small models lose more by sharing an operation than they gain.
TESTS = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/.dev ## ruff, pyright on src/hardtack, import-linter for the layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright --warnings
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## let ruff repair and format the tree
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: $(VENV)/.dev ## build the documentation site: build/docs/index.html
	@$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo build/docs/index.html

lock: $(VENV)/.dev ## resolve requirements/ anew from pyproject.toml
	@$(COMPILE) --extra demo --output-file requirements/run.txt
	@$(COMPILE) --extra demo --extra lora --extra onnx --extra openvino --extra tensorboard --extra docs --extra report --extra dev --constraint requirements/run.txt --output-file requirements/dev.txt
	@! grep -nE '^(cuda|nvidia|sentence-transformers|torch|triton)|://|file:|^--' requirements/run.txt requirements/dev.txt

clean: ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build .hypothesis .import_linter_cache .pytest_cache .ruff_cache src/hardtack.egg-info
	find docs/methods docs/verbs -name '*.md' ! -name index.md -delete
	find src tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# ---- the environment: a changed file below installs again, otherwise these cost nothing ----

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hardtack needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt requirements/torch.txt | $(BIN)/python
	@echo "installing requirements/run.txt and PyTorch into $(VENV) (minutes, the first time)" >&2
	@$(LOCKED) -r requirements/run.txt
	@$(PIP) install --only-binary :all: -r requirements/torch.txt
	@touch $@

# The package itself, editable; setuptools is in the lock, so building needs nothing that is not pinned.
$(VENV)/.project: pyproject.toml $(VENV)/.run
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run | $(VENV)/.project
	@echo "installing requirements/dev.txt into $(VENV)" >&2
	@$(LOCKED) -r requirements/dev.txt
	@touch $@
