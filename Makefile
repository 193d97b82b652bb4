SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The first Python that is at least 3.11.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

# Debian keeps venv apart from Python; asked for only where it is absent.
APT_PACKAGES := python3-venv

# The server that the tests start for themselves.
POSTGRES = $(or $(wildcard /usr/lib/postgresql/*/bin/initdb),$(shell command -v initdb))
POLICY := /usr/sbin/policy-rc.d

# The cluster that the tests start for themselves, and developers with slurm/devcluster.
SLURM = $(shell PATH="$$PATH:/usr/sbin:/sbin"; command -v slurmctld slurmd munged sbatch)

# The browser in which the tests look at the dashboard.
CHROMIUM = $(shell command -v chromium)

# The machine with the GPU has its own Python with torch and no network.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)

# What checks the alert rules; its package brings a server, which nobody starts.
PROMTOOL = $(shell command -v promtool)

# A module's tests stay in one process; a third process keeps the cores busy while another waits for Slurm.
SIDE_BY_SIDE := -n 3 --dist loadscope --no-loadscope-reorder

# A folder with nnsight for that Python; what is not there is not measured.
GPU_PEERS ?= $(PEERS)/bin/python
GPU_BENCH := --device cuda --rounds 1 --repeats 5 --peers $(GPU_PEERS)

.PHONY: help setup demo demo-cluster model postgres slurm chromium promtool test chaos lint types bench gpu docs pictures examples clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.installed ## create .venv and install the package with its development tools

demo: setup ## run a real patching sweep, from the command line to the heat map
	@$(BIN)/ndif-batch demo

demo-cluster: setup model postgres slurm ## bring up a Slurm, PostgreSQL, the server and the jobs of five users, until Ctrl-C
	@exec $(BIN)/python slurm/democluster

test: setup model postgres slurm chromium promtool ## run the whole test suite
	@$(BIN)/pytest $(SIDE_BY_SIDE)

chaos: setup postgres slurm ## attack installations of every kind at random; none may lose anything (SEED=N: which attack)
	@$(BIN)/python -m tests.chaos.run $(if $(SEED),--seed $(SEED))

lint: setup ## check style, formatting and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo --no-cache

types: setup ## check the types
	$(BIN)/mypy

bench: setup model postgres $(PEERS)/.installed ## measure the engine against raw hooks, nnsight and others
	$(BIN)/python benchmarks/patching.py
	$(BIN)/python benchmarks/patching.py --shape gpt2-small
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/mixed_users.py
	$(BIN)/python benchmarks/queue_load.py
	$(BIN)/python benchmarks/archive.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/scaling.py

gpu: ## run the tests and benchmarks that need CUDA
	$(GPU_PYTHON) -m pytest tests/engine -m gpu
	$(GPU_PYTHON) benchmarks/patching.py $(GPU_BENCH)
	$(GPU_PYTHON) benchmarks/extraction.py $(GPU_BENCH)
	$(GPU_PYTHON) benchmarks/mixed_users.py $(GPU_BENCH)
	$(GPU_PYTHON) benchmarks/busy.py --device cuda
	$(GPU_PYTHON) benchmarks/overhead.py $(GPU_BENCH) --dtype float32
	$(GPU_PYTHON) benchmarks/scaling.py $(GPU_BENCH) --dtype float32

docs: setup ## write the generated reference pages
	$(BIN)/python docs/generate.py
	PYTHONPATH=. $(BIN)/python docs/families.py
	PYTHONPATH=. $(BIN)/python docs/methods.py

pictures: setup chromium model ## take the pictures of the dashboard and of the methods anew
	NDIF_BATCH_PICTURES=yes $(BIN)/pytest tests/dashboard/test_dashboard_pages.py -k no_page_complains
	PYTHONPATH=. $(BIN)/python docs/methods.py pictures

examples: setup model ## run the notebooks anew and store what they show
	$(BIN)/python examples/run.py examples/*.ipynb

clean: ## remove caches and build products
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ndif_batch jobs migrations tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

model: setup
	@$(BIN)/python -c 'from ndif_batch.config import load_settings as settings; \
		from ndif_batch.models import demo; demo.add(settings().model_cache)'

postgres:
	$(if $(POSTGRES),@:,$(call install-servers,postgresql))

slurm:
	$(if $(filter 4,$(words $(SLURM))),@:,$(call install-servers,slurmctld slurmd slurm-client munge))

chromium:
	$(if $(CHROMIUM),@:,$(call install-servers,chromium fonts-dejavu-core))

promtool:
	$(if $(PROMTOOL),@:,$(call install-servers,prometheus))

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call new-venv,$(VENV))
	@echo "Installing into $(VENV): a few minutes the first time"
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev]'
	@touch $@

$(PEERS)/.installed: benchmarks/peers.txt
	$(call new-venv,$(PEERS))
	@echo "Installing into $(PEERS)"
	@$(PEERS)/bin/python -m pip install -qq -r benchmarks/peers.txt
	@touch $@

define new-venv
@test -n "$(PYTHON)" || { echo "ndif_batch needs Python 3.11 or later; none was found" >&2; exit 2; }
@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { apt-get update -qq && apt-get install -qq -y $(APT_PACKAGES); }
@$(PYTHON) -m venv $(1)
endef

# Debian would start servers of its own on their usual ports; nobody here asked for that.
define install-servers
@echo "Installing $(1)"
@test -e $(POLICY) || { printf '#!/bin/sh\nexit 101\n' >$(POLICY) && chmod +x $(POLICY) && trap 'rm $(POLICY)' EXIT; }; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1) >/dev/null
endef
