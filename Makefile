# Tasks of this repository; `make` lists them. Works with git, make and Python 3.11 alone: what else is needed is
# installed below .venv and .jetbridge, nothing system-wide.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
.SHELLFLAGS := -euc
MAKEFLAGS += --no-print-directory --no-builtin-rules

UV_VERSION := 0.13.9
UV_OWN := .jetbridge/tools/uv/bin/uv
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo $(UV_OWN))
BIN := .venv/bin
READY := .venv/.ready
MEMBERS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
SOURCES := $(patsubst %/pyproject.toml,%/src,$(MEMBERS))
# pytest rewrites each test file's asserts, which takes seconds: it may keep what it made, whatever is set here.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest $(PYTEST_ARGS)

# Tests wait as much as they compute, hence twice the two processors this must be quick on. What shares servers
# stays together; see tests/conftest.py.
IN_PARALLEL := --numprocesses 4 --dist loadscope

# Where PYTHONDONTWRITEBYTECODE is set, importing Airflow takes seconds unless it was compiled at installation. Our
# own code is compiled, too: the tests start some hundred processes that import it.
SYNC := $(UV) sync --frozen --compile-bytecode --quiet

##@ Start here

.PHONY: help
help: ## List the tasks
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(READY) ## Run the whole system and an example Dag through it until Ctrl-C; ONCE=1 ends after the Dag
	@exec $(BIN)/jetbridge dev demo $(if $(filter-out 0,$(ONCE)),--once)

.PHONY: test
test: check ## Install what is needed, check the code and run every test
	@echo "==> tests"
	@$(PYTEST) -m "not long" $(IN_PARALLEL)

##@ While working

.PHONY: check
check: lint mypy ## Lint, formatting and types

.PHONY: lint
lint: $(READY)
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .

.PHONY: mypy
mypy: $(READY)
	@echo "==> mypy"
	@$(BIN)/mypy --no-error-summary $(SOURCES)

.PHONY: unit
unit: $(READY) ## Unit tests only
	@$(PYTEST) tests/unit

.PHONY: integration
integration: $(READY) ## Tests of single parts against real servers
	@$(PYTEST) tests/integration

.PHONY: acceptance
acceptance: $(READY) ## Tests of the whole system as real processes
	@$(PYTEST) tests/acceptance

.PHONY: chaos
chaos: $(READY) ## Break everything that can break, check from marks what ran when, print recovery times; ROUNDS=100 SEED=7
	@$(PYTEST) --verbose tests/chaos

.PHONY: outage
outage: $(READY) ## Cut an agent off for half an hour under the policy wait, in full: no task may notice; OUTAGE=1800
	@OUTAGE=$${OUTAGE:-1800} $(PYTEST) -o faulthandler_timeout=0 tests/chaos/test_waiting.py -k airflows_patience

.PHONY: long
long: $(READY) ## The tests that wait for real leases and time-outs and are left out of make test
	@$(PYTEST) -m long

.PHONY: fmt
fmt: $(READY) ## Format the code and fix what can be fixed by itself
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# The executors to compare with, in an environment of their own.
BENCH_ENV := .jetbridge/bench
BENCH_READY := $(BENCH_ENV)/.ready

##@ Now and then

.PHONY: bench
bench: $(BENCH_READY) ## Measure beside LocalExecutor, CeleryExecutor and EdgeExecutor, and the gateway alone; takes an hour
	@$(BENCH_ENV)/bin/python benchmarks/pipe.py
	@$(BENCH_ENV)/bin/python benchmarks/proxy.py
	@$(BENCH_ENV)/bin/python benchmarks/fan_in.py
	@$(BENCH_ENV)/bin/python benchmarks/xcom.py
	@$(BENCH_ENV)/bin/python benchmarks/site.py
	@$(BENCH_ENV)/bin/python benchmarks/executors.py $(BENCH_ARGS)

.PHONY: compat
compat: $(READY) ## Parse and run Airflow's own example Dags remotely and locally, and compare; takes some 15 minutes
	@$(BIN)/jetbridge dev compat

.PHONY: lock
lock: $(UV) ## Lock the newest dependencies that the pyproject files allow
	$(UV) lock --upgrade

.PHONY: clean
clean: ## Delete everything that was installed or made here
	rm -rf .venv .jetbridge .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BENCH_READY): uv.lock pyproject.toml $(MEMBERS) | $(UV)
	@echo "==> installing the executors to compare with (once)"
	@UV_PROJECT_ENVIRONMENT=$(BENCH_ENV) $(UV) sync --frozen --group bench --compile-bytecode --quiet
	@touch $@

# Installation. The stamp is older than a lock or a member that changed since.

$(READY): uv.lock pyproject.toml $(MEMBERS) | $(UV)
	@echo "==> installing dependencies (once; some 300 MB)"
	@$(SYNC)
	@$(BIN)/python -m compileall -q $(SOURCES)
	@touch $@

# `pip install --target` needs neither the venv module nor permission to touch a system that says it is
# externally managed (PEP 668). A uv on PATH wins.
$(UV_OWN):
	@python3 -m pip --version >/dev/null 2>&1 || { \
	  echo "Neither uv nor pip is here. Put uv on PATH, or install pip (Debian: apt-get install python3-pip)." >&2; \
	  exit 1; }
	@echo "==> installing uv"
	@python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action ignore \
	  --target .jetbridge/tools/uv uv==$(UV_VERSION)

include k8s/charts.mk
