# What a newcomer types: `make demo`, `make test`, `make bench`. Everything that they need is installed when it is missing.
SHELL := /bin/bash
PODNET := target/release/podnet
# What `make build`, `install` and `demo` build in beside what is there by default: WITH=podnet-cli/parquet for Parquet files and S3.
WITH :=
# What is not built in by default is tested all the same.
FEATURES := --features podnet-cli/parquet

.PHONY: help setup setup-test setup-bench build demo test lint bench churn mending fuzz install

help:
	@echo "make demo      build, bring a cluster up, apply examples/, show the result, leave it running"
	@echo "make test      everything that CI checks: formatting, lints, layers, licences, every test"
	@echo "make bench     measure, and write the figures to bench/results/"
	@echo "make churn     change up to 500 endpoints a second under connections, for a minute in each mode (in ipvs 100, in the virtual machine)"
	@echo "make mending   damage what podnet has in the kernel, and tell how long each takes to be whole: mostly less than a second, on a machine that does nothing else"
	@echo "make fuzz      fuzz what cluster DNS reads, MINUTES=10 for each target, and keep what was found to reach more"
	@echo "make install   install podnet and podnet-cni into /usr/local/bin, WITH=podnet-cli/parquet with Parquet and S3"

setup:
	@scripts/setup demo

setup-test:
	@scripts/setup test

setup-bench:
	@scripts/setup bench

build: setup
	cargo build --release --locked --bin podnet --bin podnet-cni $(if $(WITH),--features $(WITH))

demo: build
	@PODNET=$(abspath $(PODNET)) scripts/demo

test: setup-test
	cargo fmt --all --check
	cargo xtask layers
	cargo deny --locked check bans licenses sources
	cargo clippy --workspace --all-targets $(FEATURES) --locked -- -D warnings
	cargo clippy -p podnet-agent --no-default-features --locked -- -D warnings
	cargo build --workspace $(FEATURES) --locked
	cargo nextest run --workspace $(FEATURES) --locked

bench: setup-bench build
	@PODNET=$(abspath $(PODNET)) bench/run

churn: setup-test
	PODNET_TEST_CHURN_SECONDS=60 cargo nextest run --locked -p podnet-testnet --test packets --no-capture \
		'churn::connections_go' 'churn::agent::fresh::endpoints_of_virtual_servers_change'

mending: setup-test
	cargo build --workspace $(FEATURES) --locked
	PODNET_TEST_ALONE=1 cargo nextest run --workspace $(FEATURES) --locked --test repair --test modes --no-capture \
		what_others_damage_is_mended what_they_need_for_it_is_kept_whole a_pool_changes_its_way_live \
		what_people_apply_holds_in_every_mode

MINUTES ?= 10
fuzz:
	@scripts/setup fuzz
	fuzz/run $(MINUTES)

install: build
	install -m 0755 target/release/podnet target/release/podnet-cni /usr/local/bin/
