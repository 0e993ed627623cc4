# The daily habits. `make` alone prints what there is.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
PACKAGES := actors broker gateway observability chaos synod

# Runs a command as root when that needs no password, and fails otherwise.
AS_ROOT := as_root() { if [ "$$(id -u)" -eq 0 ]; then "$$@"; else sudo -n "$$@"; fi; }
# Installs Debian packages: install_packages NAME...
INSTALL := $(AS_ROOT); install_packages() { \
    command -v apt-get >/dev/null && as_root true 2>/dev/null || return 1; \
    echo "Installing $$* with apt-get"; \
    as_root apt-get update -qq && \
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$$@" >/dev/null; }

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-26s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ── Install ───────────────────────────────────────────────────────────────────

.PHONY: install
install: $(INSTALLED) ## Make .venv from requirements.lock, and nothing else

$(LOCKED): requirements.lock
	@$(INSTALL); \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Synod needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv || { \
	    echo "Python's venv is missing; install it: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) from requirements.lock"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --require-hashes --requirement requirements.lock
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --no-index --no-build-isolation --no-deps --editable .
	@touch $@

# ── Run ───────────────────────────────────────────────────────────────────────

.PHONY: run
run: $(INSTALLED) ## Install and serve a whole cluster on this machine (ARGS="--port 8081")
	@exec $(BIN)/synod up $(ARGS)

.PHONY: cluster-up
cluster-up: $(INSTALLED) ## Start a local cluster: RabbitMQ and one process per node
	@exec $(BIN)/python -m chaos.cluster.local up $(ARGS)

.PHONY: cluster-down
cluster-down: $(INSTALLED) ## Stop the local cluster
	@exec $(BIN)/python -m chaos.cluster.local down $(ARGS)

.PHONY: cluster-status
cluster-status: $(INSTALLED) ## Print the processes of the local cluster
	@exec $(BIN)/python -m chaos.cluster.local status $(ARGS)

# ── Measure it ────────────────────────────────────────────────────────────────

# About five minutes with etcd and NATS beside it, three without; for them see docs/measured.md.
.PHONY: bench
bench: $(INSTALLED) ## Measure throughput and latency beside the broker, the disk and etcd
	@mkdir -p bench-reports
	@exec $(BIN)/synod bench --json bench-reports/bench.json --plot bench-reports/bench.svg $(ARGS)

# ── Break it ──────────────────────────────────────────────────────────────────

# Each starts a cluster and a RabbitMQ of its own on free ports and ends them; TARGET=compose breaks
# the containers of this folder instead.
TARGET ?= local
SCENARIOS := store-crash proposer-crash acceptor-crash acceptor-quorum-loss acceptor-disk-loss \
    replace-under-load grow-and-shrink learner-crash broker-crash pause cut-off broker-node-crash \
    broker-node-freeze site-loss partition

.PHONY: chaos
chaos: $(INSTALLED) ## Break a real cluster in every way (ARGS="--brokers 3", TARGET=compose)
	@exec $(BIN)/synod chaos all --target $(TARGET) $(ARGS)

.PHONY: $(SCENARIOS:%=chaos-%)
$(SCENARIOS:%=chaos-%): chaos-%: $(INSTALLED)
	@exec $(BIN)/synod chaos $* --target $(TARGET) $(ARGS)

chaos-store-crash: ## A store dies: idle, with a pending request, after it granted a write
chaos-proposer-crash: ## The leading proposer dies
chaos-acceptor-crash: ## Two of five acceptors die
chaos-acceptor-quorum-loss: ## Three of five acceptors die: unavailable, then back
chaos-acceptor-disk-loss: ## Three of five acceptors lose their disks, one by one, and are replaced
chaos-replace-under-load: ## Every member of every role loses its disk and is replaced, one by one
chaos-grow-and-shrink: ## Members of every role are added, then others removed (local)
chaos-learner-crash: ## The coordinator dies at each point of two-phase commit
chaos-broker-crash: ## RabbitMQ is killed and comes back
chaos-pause: ## Leader, coordinator and a store are held for 20 s
chaos-cut-off: ## Nodes live, but do not hear what is said to all
chaos-broker-node-crash: ## One of three RabbitMQ nodes dies, each in turn; then two at once
chaos-broker-node-freeze: ## One of three RabbitMQ nodes is held for 20 s, each in turn
chaos-site-loss: ## A RabbitMQ node and all nodes on its site die, each of three sites in turn
chaos-partition: ## Sites and brokers are cut off, both ways and one way (local, as root)

# ── Compose ───────────────────────────────────────────────────────────────────

# HA=1: three brokers, two gateways and a proxy, on three sites (docker-compose.ha.yml).
HA ?=
# OWN_USERS=1: each node is a RabbitMQ user of its own (docs/operations.md).
OWN_USERS ?=
OWN_USERS_FILES := --file compose/own-users.yml $(if $(HA),--file compose/own-users-ha.yml)
COMPOSE := $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) \
    $(if $(HA),--file docker-compose.ha.yml,$(if $(OWN_USERS),--file docker-compose.yml)) \
    $(if $(OWN_USERS),$(OWN_USERS_FILES))
# HTTPS=1: the gateway speaks TLS (not with HA=1: there a proxy is before the gateways).
HTTPS ?=
ifneq ($(HTTPS),)
export GATEWAY_TLS_CERT := /etc/synod/gateway.pem
export PROMETHEUS_TARGETS := targets-https
endif
# Letters and digits only, so that they fit into a URL as they are.
SECRET := head -c 256 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c 32
UP_PATIENCE_S ?= 240

.PHONY: up
up: .env .secrets/token .secrets/erlang_cookie ## Start everything in containers, and wait until it is well (HA=1: three sites, HTTPS=1, OWN_USERS=1)
	@$(if $(and $(HA),$(HTTPS)),echo "HTTPS=1 is for one gateway; with HA=1 give the proxy a certificate" >&2; exit 1)
	@compose/users-of-nodes.sh $(if $(OWN_USERS),own,shared) $(COMPOSE)
	@compose/certificates.sh .secrets/tls
	@$(COMPOSE) build --quiet
	@$(if $(OWN_USERS),compose/own-users.sh .secrets/broker $(UP_PATIENCE_S) $(COMPOSE))
	@compose/up.sh $(UP_PATIENCE_S) $(COMPOSE)
	@$(if $(HTTPS),echo "Synod      https://localhost:$${SYNOD_HTTP_PORT:-80}   --ca-cert .secrets/tls/ca.pem; token: SYNOD_TOKEN in .env", \
	    echo "Synod      http://localhost         token: SYNOD_TOKEN in .env")
	@echo "RabbitMQ   http://localhost:15672   $(if $(OWN_USERS),user and password: .secrets/broker/operator.env,RABBITMQ_USER and RABBITMQ_PASSWORD in .env)"
	@echo "Grafana    http://localhost:3000    admin, GRAFANA_PASSWORD in .env"
	@echo "Prometheus http://localhost:9090"

.PHONY: down
down: .env ## Stop and remove the containers; their data stays (ARGS="--volumes" removes it)
	@$(COMPOSE) down --remove-orphans $(ARGS)

.PHONY: ps
ps: .env ## Print the containers and how they are
	@$(COMPOSE) ps

.PHONY: logs
logs: .env ## Print what the containers said last (ARGS="--follow store-1")
	@$(COMPOSE) logs --tail 100 $(ARGS)

.PHONY: trace
trace: .env ## Print what crosses RabbitMQ for some seconds (ARGS="--seconds 5 --all")
	@compose/trace.sh "$(ARGS)" $(COMPOSE)

.env:
	@umask 077; rm -f $@.part; { \
	    echo "# Made by make up for this machine. Never part of the repository."; \
	    echo "RABBITMQ_USER=synod"; \
	    echo "RABBITMQ_PASSWORD=$$($(SECRET))"; \
	    echo "SYNOD_TOKEN=$$($(SECRET))"; \
	    echo "GRAFANA_PASSWORD=$$($(SECRET))"; \
	} > $@.part && mv $@.part $@
	@echo "Wrote .env with new credentials"

# Prometheus runs as a user of its own and reads the token from a file; nobody else on this machine
# gets through the folder.
.secrets/token: .env
	@mkdir -p -m 0700 .secrets && chmod 0700 .secrets && sed -n 's/^SYNOD_TOKEN=//p' .env | tr -d '\n' > $@ && chmod 0644 $@

# By it the brokers of docker-compose.ha.yml know each other.
.secrets/erlang_cookie:
	@mkdir -p -m 0700 .secrets && chmod 0700 .secrets && (umask 077; $(SECRET) > $@.part && mv $@.part $@)

# ── Check ─────────────────────────────────────────────────────────────────────

.PHONY: test
test: $(INSTALLED) test-broker test-prometheus test-browser ## Install what the tests need and run them all (ARGS="-k paxos")
	@exec $(BIN)/python -m tests $(ARGS)

# The tests take a broker from SYNOD_TEST_AMQP_URL, else from Docker, else they start
# their own rabbitmq-server. Debian starts a system-wide one on installation; that one
# is not needed here and is switched off again.
.PHONY: test-broker
test-broker:
	@$(INSTALL); \
	if [ -n "$${SYNOD_TEST_AMQP_URL:-}" ] || docker info >/dev/null 2>&1 || \
	    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null; then \
	    exit 0; \
	fi; \
	install_packages rabbitmq-server || { \
	    echo "The tests need a RabbitMQ. Do one of these: install the package" \
	        "(apt-get install rabbitmq-server), start Docker, or set SYNOD_TEST_AMQP_URL" >&2; \
	    exit 1; }; \
	if [ -d /run/systemd/system ]; then \
	    as_root systemctl disable --quiet --now rabbitmq-server; \
	fi

# The dashboards and alerts are held against a real Prometheus.
.PHONY: test-prometheus
test-prometheus:
	@$(INSTALL); \
	if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit 0; fi; \
	install_packages prometheus || { \
	    echo "The tests need Prometheus: apt-get install prometheus" >&2; exit 1; }; \
	if [ -d /run/systemd/system ]; then \
	    as_root systemctl disable --quiet --now prometheus prometheus-node-exporter 2>/dev/null || true; \
	fi

# For the long form: partitions and a NAT are made of network namespaces, by root; elsewhere their
# tests are skipped, and where CI is set they fail.
.PHONY: test-network
test-network:
	@$(INSTALL); \
	PATH="$$PATH:/usr/sbin:/sbin"; \
	{ command -v ip && command -v nft; } >/dev/null || install_packages iproute2 nftables || \
	    echo "No iproute2 and nftables: tests of partitions and of a NAT can't run" >&2

.PHONY: soak
soak: $(INSTALLED) ## Simulate until something breaks or it is interrupted (ARGS="--faults crash,loss")
	@exec $(BIN)/python -m chaos.simulator.soak $(ARGS)

FUZZ_S ?= 60

.PHONY: fuzz
fuzz: $(INSTALLED) ## Send hostile messages, requests and files for a while (FUZZ_S=600)
	@until=$$(( $$(date +%s) + $(FUZZ_S) )); \
	while [ "$$(date +%s)" -lt "$$until" ]; do \
	    $(BIN)/python -m pytest -q -x --hypothesis-profile=fuzz --timeout 900 $(ARGS) tests/fuzz; \
	done

.PHONY: mutants
mutants: $(INSTALLED) ## Put deliberate bugs in, one by one, and see each of them caught (ARGS="3.8 --jobs 2")
	@exec $(BIN)/python -m chaos.mutants $(ARGS)

.PHONY: model
model: $(INSTALLED) ## Search the model of membership change (ARGS="--mutants", ARGS="leases --time 600")
	@exec $(BIN)/python -m chaos.model $(ARGS)

.PHONY: mutants-survey
mutants-survey: $(INSTALLED) ## Change the code by machine, and print what no test notices (ARGS="actors/state/tree.py")
	@exec $(BIN)/python -m chaos.mutants.survey $(ARGS)

# Deno formats JavaScript, CSS and HTML; its wheel needs no Node. Nothing else of it is used.
FORMAT_UI := DENO_DIR=$(VENV)/deno DENO_NO_UPDATE_CHECK=1 $(BIN)/deno fmt --no-config \
    --no-editorconfig --line-width 100 --ignore=gateway/ui/vendor gateway/ui

.PHONY: lint
lint: $(INSTALLED) ## Check style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(FORMAT_UI) --check
	@$(BIN)/mypy --strict $(PACKAGES) tests
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(INSTALLED) ## Rewrite the code in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(FORMAT_UI)

.PHONY: screenshots
screenshots: $(INSTALLED) test-browser ## Renew the pictures of the web UI in docs/pictures
	@exec $(BIN)/python -m tests.browser.screenshots

# Debian's Chromium; without it the tests of the UI are skipped, and where CI is set they fail.
.PHONY: test-browser
test-browser:
	@$(INSTALL); \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	    install_packages chromium || \
	    echo "No Chromium: the tests in tests/browser are skipped, or fail where CI is set" >&2

# ── Keep ──────────────────────────────────────────────────────────────────────

# uv resolves for every platform and Python at once; it lives in a throw-away folder.
.PHONY: lock
lock: ## Renew both locks (ARGS="--upgrade" for newer versions)
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder"; \
	"$$folder/bin/pip" install --quiet --disable-pip-version-check uv; \
	compile() { "$$folder/bin/uv" pip compile pyproject.toml --extra server --universal \
	    --python-version 3.11 --generate-hashes --no-header --quiet "$$@" $(ARGS); }; \
	compile --group dev --output-file requirements.lock; \
	compile --group build --constraint requirements.lock --output-file requirements.run.lock

.PHONY: sbom
sbom: $(INSTALLED) ## List what an installation consists of, in CycloneDX's JSON
	@exec $(BIN)/python -m tests.house.sbom dist/sbom.cdx.json

.PHONY: clean
clean: ## Remove .venv, caches and built files (data stays)
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis \
	    .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
