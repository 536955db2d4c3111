# On a fresh machine, two commands do everything: `make run` and `make test`. Both set up .venv first.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTED := $(VENV)/.tested

.PHONY: run test test-long test-pages test-deploy check bench docs setup clean help

run: $(READY)  ## Train FedAvg on scikit-learn's digits, 20 clients with two labels each, and write a report
	@$(BIN)/coterie run experiments/digits.toml --out runs/digits-$$(date +%Y%m%d-%H%M%S)

# Each process takes neighbours of the list, so that tests of one file share what one of them made.
test: $(TESTED)  ## Run all tests
	@$(BIN)/python -m pytest -n auto --dist worksteal

test-long: $(TESTED)  ## Run the tests that `make test` leaves out because they take long
	@$(BIN)/python -m pytest -n auto --dist worksteal --long -m long

test-deploy: $(TESTED)  ## Run the tests of real silos: processes are killed, strangers are refused; a quarter of an hour
	@$(BIN)/python -m pytest tests/silos tests/deploy --deploy -v

test-pages: $(TESTED)  ## Open the pages of real runs in Chromium, and check them with axe (npm); about two minutes
	@npm install --silent --no-save --prefix $(VENV)/npm axe-core@4 || echo "No axe-core: its checks are skipped"
	@$(BIN)/python -m pytest tests/pages --pages -v -rs

check: $(TESTED)  ## Check the style, the types and the order of the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY)  ## Time a round, beside other libraries that are installed (benchmarks/speed/README.md)
	@$(BIN)/python benchmarks/speed/compare.py

docs: $(TESTED)  ## Check the links of the documentation, and build its site into site/, which opens from the disk
	@$(BIN)/python docs/check_links.py
	@$(BIN)/mkdocs build --strict --quiet
	@echo "$(CURDIR)/site/index.html"

setup: $(TESTED)  ## Only set up .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "coterie needs Python 3.11 or newer; name one with make PYTHON=python3.11")'
	@echo "Setting up $(VENV) (PyTorch is large; the first time takes a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

# What tests need in addition to what runs need: tools, the optional packages, and ByzFL and Opacus as oracles. These two
# are installed without their dependencies, because what is compared does not use them.
$(TESTED): $(READY)
	@echo "Adding what tests need to $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps byzfl opacus
	@touch $@

clean:  ## Remove .venv and caches, but keep runs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'
