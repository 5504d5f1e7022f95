# One command per task; `make` alone lists them.
#
# Variables: HOST and PORT for `run`; SECONDS for each target of `fuzz`; PYTHON for the
# interpreter behind .venv; SYSTEM_PACKAGES=1 lets `test` install by apt-get,
# when run as root, the programs that some tests use (tools/system-packages.sh).
# PEERS is the folder into which `bench-rust` builds the servers beside ours.

PYTHON ?= $(shell tools/pythons.sh main)
VENV ?= .venv
TARGET_DIR ?= target
REQUESTS ?= 1000000
FIRST ?= 0
DRIVER ?= io_uring
PEERS ?= bench/build/native
HOST ?= 127.0.0.1
PORT ?= 8000
SECONDS ?= 60

# Where rustup puts cargo when the shell's profile was not read again.
export PATH := $(PATH):$(HOME)/.cargo/bin

BIN := $(VENV)/bin
REQUIREMENTS := $(VENV)/.requirements
BUILT := $(VENV)/.built
RUST_SOURCES := Cargo.toml Cargo.lock $(wildcard crates/*/Cargo.toml) \
	$(shell find crates -name '*.rs' 2>/dev/null)

.PHONY: help build run test test-rust test-long fuzz sanitize simulate mutations rules soak stress lint fmt bench bench-rust docs clean check-tools system-packages

help: ## list the commands
	@awk -F ' ?## ' '/^[a-z-]+:.*## /{sub(/:.*/, "", $$1); printf "make %-10s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

build: check-tools $(BUILT) ## set up .venv and build the release extension into it

run: build ## serve examples/hello.py on HOST and PORT
	@$(BIN)/theframework run examples.hello:app --host $(HOST) --port $(PORT)

test: check-tools system-packages ## run all tests, on every CPython that is installed
	@$(MAKE) --no-print-directory --jobs=2 build test-rust
	tools/test-pythons.sh

# More threads than cores: most tests of drivers wait for the kernel.
test-rust: check-tools
	RUST_TEST_THREADS=4 cargo test --workspace --locked

test-long: build system-packages ## run the tests that take minutes
	EVERYTHING=1 tools/test-pythons.sh
	$(BIN)/pytest -m long -s
	$(MAKE) --no-print-directory simulate mutations rules sanitize fuzz soak stress

fuzz: ## run the fuzz targets, each for SECONDS
	CARGO_TARGET_DIR=$(abspath $(TARGET_DIR)) tools/fuzz.sh $(SECONDS)

simulate: ## run REQUESTS simulated requests with faults, or the one seed SEED with a trace
	cargo run --quiet --locked --profile checked -p theframework-simulator -- \
		$(if $(SEED),--seed $(SEED),--requests $(REQUESTS) --first $(FIRST))

mutations: ## plant faults in the sources, and see that the simulator finds each
	tools/mutations.py

rules: build ## take each rule of HTTP out of the sources, and see that its tests fail
	tools/rules.py

soak: build ## ten minutes of mixed good and bad clients, memory watched, on DRIVER
	$(BIN)/python -m tests.soak --driver $(DRIVER)

stress: build ## 2,000 connections on the face for Rust, half of them resetting
	CARGO_TARGET_DIR=$(abspath $(TARGET_DIR)) \
		cargo build --release --locked --quiet -p theframework --example bench
	$(BIN)/python -m tests.rust_face --binary $(TARGET_DIR)/release/examples/bench

sanitize: build ## run the tests under AddressSanitizer and ThreadSanitizer
	VENV=$(VENV) CARGO_TARGET_DIR=$(abspath $(TARGET_DIR)) tools/sanitize.sh

lint: build ## check form and types: rustfmt, clippy, ruff, mypy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: build ## format all sources
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: build ## measure beside other servers
	$(BIN)/python bench/run.py

# What does not build of the others is left out.
bench-rust: check-tools ## measure the Rust face beside native servers, built into PEERS
	-bench/native/build.sh $(PEERS)
	CARGO_TARGET_DIR=$(abspath $(TARGET_DIR)) \
		cargo build --release --locked --example bench -p theframework
	CARGO_TARGET_DIR=$(abspath $(TARGET_DIR)) $(PYTHON) bench/native/bench.py --peers $(PEERS)

docs: build ## write the generated pages
	$(BIN)/python -m theframework.settings > docs/settings.md
	$(BIN)/python -m tests.requirements > docs/http.md

clean: ## remove all that was built, .venv too
	rm -rf .venv .venv-* target .pytest_cache .mypy_cache .ruff_cache
	rm -f python/theframework/*.so
	find python tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

check-tools:
	@tools/check.sh "$(PYTHON)"

system-packages:
	@tools/system-packages.sh

$(REQUIREMENTS): requirements-dev.txt | check-tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(BUILT): $(REQUIREMENTS) pyproject.toml $(RUST_SOURCES) | check-tools
	VIRTUAL_ENV=$(abspath $(VENV)) CARGO_TARGET_DIR=$(abspath $(TARGET_DIR)) \
		$(BIN)/maturin develop --release --locked --quiet
	@touch $@
