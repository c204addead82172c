# `make demo` and `make test` set up all they need on a machine with Python 3.11 or newer, git and a network.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV = "$$(command -v uv || echo $(abspath $(VENV))/uv/bin/uv)"

# What a machine happens to set must not be what makes the commands below work.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED $(filter AIRFLOW_% MLFLOW_% NEMO_AIRFLOW_%,$(.VARIABLES))

.PHONY: help env pages demo ui test test-lab lab lab-down lint docs format lowest newest release-check wheel bench chaos deployment clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(READY) ## make the environment in .venv

$(READY): pyproject.toml constraints.txt setup-env.sh
	@bash setup-env.sh $(VENV)
	@touch $@

# The pages of Airflow's web UI, which are not committed.
PAGES := nemo_airflow/plugin/static/built-from.txt
$(PAGES): $(READY) ui/build.py ui/build.mjs ui/package.json ui/package-lock.json $(shell find ui/src -type f)
	@$(BIN)/python ui/build.py
	@touch $@

pages: $(PAGES) ## build the pages of Airflow's web UI

demo: $(PAGES) ## run the example pipeline in a real Airflow, and show what came of it
	@$(BIN)/nemo-airflow demo

ui: $(PAGES) ## keep that Airflow and an MLflow page up, until Ctrl-C
	@$(BIN)/nemo-airflow ui

test: $(PAGES) ## run all tests; what this machine cannot run is left out, and said
	@tests/run.sh $(BIN)/pytest

test-lab: $(PAGES) ## run the tests on real back-ends: the lab's, or your own (docs/lab.md)
	$(BIN)/pytest -m lab

lab: ## bring up Docker, Slurm, Grid Engine, PostgreSQL and Kubernetes on this machine (Debian 12, root)
	@tests/lab/lab.sh up

lab-down: ## end them; what was built stays for the next time
	@tests/lab/lab.sh down

lint: $(READY) ## check style, imports, types, spelling and the links of the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md Makefile pyproject.toml setup-env.sh .ci dags docs nemo_airflow
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/docs/test_links.py
	$(BIN)/mypy
	$(BIN)/python tests/editor/check.py
	$(BIN)/python ui/check.py

docs: $(READY) ## build the site of the documentation in build/site; a warning is an error
	$(BIN)/sphinx-build -q -E -W --keep-going -d build/doctrees docs build/site
	@echo "open build/site/index.html"

format: $(READY) ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lowest: $(READY) ## run a job on Python 3.11 with the lowest versions that pyproject.toml allows
	@tests/package/versions.sh lowest 3.11 $(UV)

newest: $(READY) ## run a job on Python 3.13 with the versions of constraints.txt
	@tests/package/versions.sh newest 3.13 $(UV)

release-check: $(READY) ## build what would be released twice, and check it, its description and its extras
	@tests/package/release.sh $(abspath $(BIN)/python) $(UV)

wheel: $(READY) ## install the built wheel into a clean environment, and run the demo and a new project from it
	@tests/package/wheel.sh $(abspath $(BIN)/python) $(UV)

bench: $(PAGES) lab ## measure what a job costs, beside the raw tools and their peers (an hour)
	$(BIN)/python tests/bench/plans.py
	$(BIN)/python tests/bench/run.py
	$(BIN)/python tests/bench/packages.py
	$(BIN)/python tests/bench/points.py
	$(BIN)/python tests/bench/runs.py
	$(BIN)/python tests/bench/pages.py
	$(BIN)/python tests/bench/pages_compare.py
	$(BIN)/python tests/bench/outputs.py
	$(BIN)/python tests/bench/back_ends.py
	$(BIN)/python tests/bench/artifact_pairs.py
	$(BIN)/python tests/bench/many_jobs.py
	$(BIN)/python tests/bench/many_containers.py
	$(BIN)/python tests/bench/many_followers.py
	$(BIN)/python tests/bench/noisy_neighbour.py
	$(BIN)/python tests/bench/restart.py
	$(BIN)/python tests/bench/short_tasks.py

chaos: $(READY) lab ## kill workers, triggerers and back-ends at random, over many jobs, and count what was lost; NEMO_CHAOS_SEED repeats it
	$(BIN)/pytest -s tests/chaos/random_kills.py

deployment: $(PAGES) lab ## build docker/, start its services, kill some of them on the way, and end them
	$(BIN)/pytest -s tests/deployment/compose_services.py tests/deployment/job_image.py

clean: ## remove the environment and all that was made
	rm -rf $(VENV) ui/node_modules nemo_airflow/plugin/static .demo .bench build docs/reference-pages .mypy_cache .ruff_cache .pytest_cache .hypothesis
