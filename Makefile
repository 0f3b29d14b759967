# `make help` lists the targets. Each target first sets up the environment if it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Tests with other libraries have an environment of their own: they are large.
LIBRARIES_VENV := .venv-libraries
LIBRARIES_BIN := $(LIBRARIES_VENV)/bin
LIBRARIES_STAMP := $(LIBRARIES_VENV)/.ready
# So have tests with the lowest versions that pyproject.toml declares: Python 3.11 and its wheels.
LOWEST_VENV := .venv-lowest
LOWEST_BIN := $(LOWEST_VENV)/bin
LOWEST_STAMP := $(LOWEST_VENV)/.ready
# What depends most on the versions of other packages, within about five minutes.
LOWEST_TESTS := tests/search tests/recorder tests/journal tests/stores tests/oracle/test_kinds.py
# Their processes have -W error, and Google's newest client warns that Python 3.11 is old.
LOWEST_STORES := tests/stores/test_stores.py::TestEveryStore::test
LOWEST_LEFT_OUT := $(addprefix --deselect=$(LOWEST_STORES)_,of_many_processes_one_creates[gs] \
	no_process_sees_a_part_of_what_another_writes[gs] a_killed_writer_leaves_no_part[gs)

EXTRAS := bayes,dashboard,dask-ml,gcp,kubernetes,mlflow,optuna,plots,tables,widgets

PYTEST_ARGS ?=
# How many tests run side by side: most of them wait for other processes.
TEST_JOBS ?= 3
BENCH_ARGS ?=
SPHINX_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-browser test-k8s test-sklearn test-libraries \
	test-lowest check docs format dist sbom bench clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv for the demo, tests and benchmarks

# The project's own editable install carries its metadata (version, entry
# point), so a change of pyproject.toml installs again; that takes seconds.
$(STAMP): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip hatchling editables
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--no-build-isolation --editable '.[$(EXTRAS)]' --group dev
	touch $@

demo: $(STAMP)  ## Search a random forest on real data, with live progress
	$(BIN)/dask-hpsearch demo

test: $(STAMP)  ## Run the tests, all but the slow ones
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal \
		-m "not slow and not kubernetes and not browser" $(PYTEST_ARGS)

test-slow: $(STAMP)  ## Run the slow tests
	$(BIN)/python -m pytest -m "slow and not kubernetes and not browser" $(PYTEST_ARGS)

test-browser: $(STAMP)  ## Run the tests in Chromium: the live view and the dashboard
	$(BIN)/python -m pytest -m "browser" $(PYTEST_ARGS)

test-k8s: $(STAMP)  ## Run the tests that need a Kubernetes cluster
	$(BIN)/python -m pytest -m "kubernetes and not slow" $(PYTEST_ARGS)

test-sklearn: $(STAMP)  ## Run scikit-learn's own search tests under our backend
	$(BIN)/python tests/sklearn_suite/run.py -n 2 --dist worksteal

test-libraries: $(LIBRARIES_STAMP)  ## Run searches over other libraries' estimators (half an hour)
	$(LIBRARIES_BIN)/python -m pytest tests/libraries $(PYTEST_ARGS)

$(LIBRARIES_STAMP): constraints.txt pyproject.toml tests/libraries/constraints.txt
	test -x $(LIBRARIES_BIN)/python || $(PYTHON) -m venv $(LIBRARIES_VENV)
	$(LIBRARIES_BIN)/python -m pip install --quiet --constraint constraints.txt \
		pip hatchling editables
	$(LIBRARIES_BIN)/python -m pip install --quiet --constraint constraints.txt \
		--constraint tests/libraries/constraints.txt --no-build-isolation \
		--editable '.[bayes,gcp,optuna,tables]' --group test --group libraries
	touch $@

test-lowest: $(LOWEST_STAMP)  ## Run a part of the tests with the lowest versions that are declared
	$(LOWEST_BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal -W default \
		-m "not slow and not kubernetes and not browser" $(or $(PYTEST_ARGS),$(LOWEST_TESTS) $(foreach one,$(LOWEST_LEFT_OUT),'$(one)'))

# Everything is pinned there, so pip has nothing to search for.
$(LOWEST_STAMP): constraints.txt pyproject.toml tests/lowest/constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("needs PYTHON=python3.11")'
	test -x $(LOWEST_BIN)/python || $(PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(LOWEST_BIN)/python -m pip install --quiet --constraint tests/lowest/constraints.txt \
		--only-binary :all: --build-constraint constraints.txt --editable '.[all]' --group test
	touch $@

check: $(STAMP)  ## Lint, format check, types, layers, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: $(STAMP)  ## Build the manual in docs/_build/html; runs the gallery's examples
	DASK_HPSEARCH_HOME=$(CURDIR)/docs/_build/home $(BIN)/python -m sphinx -W --keep-going -n \
		-d docs/_build/doctrees docs docs/_build/html $(SPHINX_ARGS)

format: $(STAMP)  ## Format the code and apply the fixes of ruff
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

dist: $(STAMP)  ## Build wheel and sdist, and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

# What the wheel needs at least, by an environment that has nothing else: no pip either.
sbom: dist  ## Write the bill of materials of an installation (CycloneDX)
	rm -rf build/sbom
	$(BIN)/python -m venv --without-pip build/sbom
	$(BIN)/python -m pip --python build/sbom/bin/python install --quiet \
		--constraint constraints.txt --only-binary :all: dist/*.whl
	$(BIN)/python -m cyclonedx_py environment --pyproject pyproject.toml --mc-type library \
		--output-reproducible --validate --output-file build/sbom.cdx.json build/sbom/bin/python
	$(BIN)/python -m tests.release.bill_of_materials build/sbom.cdx.json

bench: $(STAMP)  ## Compare with loky, joblib's Dask backend and dask-ml
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:  ## Remove the environment, caches and builds
	rm -rf docs/_build docs/auto_gallery docs/reference/generated
	rm -rf $(VENV) $(LIBRARIES_VENV) $(LOWEST_VENV) build dist .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find dask_hpsearch tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
