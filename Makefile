# Every target sets up what it needs. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
INSTALLED := $(VENV)/.installed
SOURCES := gopher tests examples benchmarks proto
# Our functions that a nursery may `start`, so that flake8-async finds those started otherwise (ASYNC113).
STARTABLE := run,run_product,watch_signals,_watch_signals,_follow,_with_process
EXTRAS := embedded otlp demo bench dev
LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help setup demo run test check proto bench lock

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv/ and install Gopher with all it needs, as locked.

demo: $(INSTALLED) ## Run the whole of Gopher on real jobs: mail, images, a database export.
	@$(PY) -m examples.demo

run: $(INSTALLED) ## Serve: embedded Redis, gRPC and REST on this machine, a worker for the example handlers.
	@$(BIN)/gopher dev --app examples.media:registry

test: $(INSTALLED) ## Run the tests, in random order, on up to four cores. ARGS="-k cancel" passes options to pytest.
	@$(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

check: $(INSTALLED) ## Run every check but the tests: format, lint, types, layers, protos, spelling, house rules.
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	find $(SOURCES) -name '*.py' -not -path '*/node_modules/*' -print0 \
	  | xargs -0 -P 2 -n 80 $(BIN)/flake8-async --startable-in-context-manager $(STARTABLE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint
	cd proto && ../$(BIN)/buf format --diff --exit-code --exclude-path google
	$(PY) proto/generate.py --check
	$(BIN)/codespell
	$(PY) -m pytest -q tests/test_house_rules.py tests/test_vocabulary.py

proto: $(INSTALLED) ## Format the protos and write generated/gopher_pb from them.
	cd proto && ../$(BIN)/buf format --write --exclude-path google
	$(PY) proto/generate.py

bench: $(INSTALLED) ## Measure submit, drain, latency and memory, beside dramatiq and BullMQ. ARGS="--only drain" asks less.
	@$(PY) -m benchmarks $(ARGS)

lock: $(INSTALLED) ## Take newer versions, within the bounds of pyproject.toml, into the locks.
	$(PIP) install 'uv>=0.9,<1'
	$(PY) -m uv pip compile --quiet --upgrade $(LOCK) $(EXTRAS:%=--extra %) --output-file requirements.lock pyproject.toml
	$(PY) -m uv pip compile --quiet --upgrade $(LOCK) --group node --output-file requirements-node.lock

# A Debian without python3-venv makes no pip in the virtual environment; its own pip can put one there.
$(PY):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Gopher needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $@ install 'pip>=23.1,<27'; } \
	|| { rm -rf $(VENV); echo 'cannot make $(VENV): install the packages python3-venv and python3-pip' >&2; exit 1; }

$(INSTALLED): requirements.lock pyproject.toml | $(PY)
	$(PIP) install --no-deps --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
