# What a developer runs is what CI runs (.ci/run). RocksDB takes minutes to compile, so every command here shares one
# profile, one target directory outside the checkout, and ccache.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/driftless/target
export CC := ccache cc
export CXX := ccache c++

# Threads of the test binary; 1 if something that depends on time must be looked at alone.
TEST_THREADS ?= $(shell nproc)
# Only the tests whose name contains this.
TEST ?=
# The demo's server and the address of its page; its own and 127.0.0.1:9220 where nothing is said.
MYSQL ?=
LISTEN ?=
# What `make run` runs.
CONFIG ?= config/quickstart.toml
# How many rounds `make chaos` plays; how many links `make many-links` makes.
ROUNDS ?= 200
LINKS ?= 900
# How long `make fuzz` tries, all targets together; the seed of its choices (and of `make chaos`), drawn where none is given; what
# `make fuzz-one` replays.
SECONDS ?= 60
SEED ?=
FILE ?=
# No run takes longer than this; single waits have deadlines of their own.
TEST_SECONDS ?= 2400

.DEFAULT_GOAL := help
.PHONY: help build demo run check test verify-million chaos many-links bench bench-decode bench-log fuzz fuzz-one env clean-servers

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo '  make test TEST=rule_1 TEST_THREADS=1'

build: ## the daemon, unoptimised
	tests/servers/install build
	cargo build

demo: ## rows of a live MySQL as searchable documents, on a page; MYSQL=mysql://root@host:3306 for one of yours, LISTEN=…
	tests/servers/install build
	cargo build
	@MYSQL='$(MYSQL)' LISTEN='$(LISTEN)' exec deploy/demo

run: ## the daemon, between the servers of CONFIG=config/quickstart.toml
	tests/servers/install build
	cargo build
	cargo run --quiet -- run --config $(CONFIG)

check: ## format, lints, dependencies, house rules
	tests/servers/install build
	tests/servers/install deny
	cargo fmt --check
	cd fuzz && cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	$(HOME)/.cache/driftless/tools/bin/cargo-deny --log-level warn check bans licenses sources
	cargo test --quiet --test it tidy

test: ## everything, against real servers that are started for it and stopped after it
	tests/servers/install servers
	cargo test --no-run
	tests/servers/with timeout --kill-after=30 $(TEST_SECONDS) cargo test -- --test-threads=$(TEST_THREADS) $(TEST)

verify-million: ## the test of VERIFY LINK on a million rows, against real servers; takes a quarter of an hour
	tests/servers/install servers
	cargo test --no-run
	DRIFTLESS_VERIFY_ROWS=1000000 tests/servers/with timeout --kill-after=30 3600 \
		cargo test --test it -- --nocapture verify_finds_and_mends_what_is_planted_among

chaos: ## ROUNDS=200 rounds of faults under load, drawn by SEED=…; a table of what was lost, went back, and how long it took
	tests/servers/install servers
	cargo test --no-run
	@mkdir -p $(CARGO_TARGET_DIR); rm -f $(CARGO_TARGET_DIR)/chaos.txt
	@DRIFTLESS_CHAOS_ROUNDS=$(ROUNDS) DRIFTLESS_CHAOS_SEED=$(SEED) DRIFTLESS_CHAOS_REPORT=$(CARGO_TARGET_DIR)/chaos.txt \
		tests/servers/with timeout --kill-after=30 $$(($(ROUNDS) * 200 + 600)) \
		cargo test --test it -- --nocapture rounds_of_drawn_faults_under_load; \
		status=$$?; cat $(CARGO_TARGET_DIR)/chaos.txt; exit $$status

many-links: ## LINKS=900 links over as many indexes, on a node of their own: start, stream, kill
	tests/servers/install servers
	cargo test --no-run
	DRIFTLESS_LINKS=$(LINKS) tests/servers/with timeout --kill-after=30 3600 \
		cargo test --test it -- --nocapture many_links_start_at_once_and_run

bench: ## figures, of a release build: docs/benchmarks.md; BENCH_ROWS=100000 BENCH_RUNS=1 for a try
	tests/servers/install servers
	cargo bench --bench e2e

bench-decode: ## log to bulks on one core, beside mysql_common
	tests/servers/install servers
	cargo bench --bench e2e -- decode

bench-log: ## a log of 2 GB, 1 % of it of interest, beside mysqlbinlog --raw; BENCH_LOG_MB=200 for a try
	tests/servers/install servers
	cargo bench --bench e2e -- log

fuzz: ## everything that reads bytes from outside, on damaged ones, for SECONDS=60; SEED=… for the same choices: fuzz/README.md
	tests/servers/install build
	cd fuzz && cargo build --quiet && cargo run --quiet -- run $(SECONDS) $(SEED)

fuzz-one: ## what a run has found, once more: FILE=fuzz/crashes/…
	@cd fuzz && cargo build --quiet && cargo run --quiet -- one $(abspath $(FILE))

env: ## the environment of all this: eval "$$(make -s env)", then plain cargo does not compile RocksDB again
	@echo 'export CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)" CC="$(CC)" CXX="$(CXX)"'

clean-servers: ## stop and delete what killed test runs have left behind
	tests/servers/with --clean
