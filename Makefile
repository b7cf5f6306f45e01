# Everything runs from here; `make help` lists the verbs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
USE := $(VENV)/.use
PACKAGES := proto/holdfast daemon/holdfast_daemon shim/holdfast_shim
WORKERS ?= 4
CYCLES ?= 10000

.DEFAULT_GOAL := help
.PHONY: help setup packages proto proto-check format lint types test soak bench demo build clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

setup: $(STAMP) ## make .venv with everything for use and development

$(STAMP): pyproject.toml constraints.txt packaging/setup.sh
	sh packaging/setup.sh $(PYTHON) $(VENV) dev
	touch $@ $(USE)

# What a user needs, without the development tools: much sooner there.
$(USE): pyproject.toml constraints.txt packaging/setup.sh
	sh packaging/setup.sh $(PYTHON) $(VENV)
	touch $@

packages: ## install the programs that the tests need (apt, as root)
	sh packaging/test-packages.sh

proto: setup ## generate stubs, catalogue and contract from proto/
	$(BIN)/python proto/generate.py

proto-check: setup ## fail when what is generated differs, or the contract breaks
	$(BIN)/python proto/check.py

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

lint: setup ## ruff, and shellcheck where there is one
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@if command -v shellcheck >/dev/null; then shellcheck packaging/*.sh .ci/run && shellcheck -e SC2154,SC2034,SC2015 daemon/holdfast_daemon/kept/host/*.sh; else echo 'no shellcheck here'; fi

types: setup ## mypy --strict and pyright strict, over code and tests
	$(BIN)/mypy
	$(BIN)/pyright

test: setup packages ## the test suite, against a real sshd
	$(BIN)/python -m compileall -q $(PACKAGES)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

soak: setup packages ## the long tests; CYCLES=10000 connects and disconnects
	HOLDFAST_CYCLES=$(CYCLES) $(BIN)/python -m pytest -n 2 $(ARGS) tests/soak
	HOLDFAST_KEPT_KILLS=46 HOLDFAST_SESSION_MIB=1024 HOLDFAST_SESSION_CUTS=200 HOLDFAST_SESSION_RUNS=500 \
		$(BIN)/python -m pytest -n 2 $(ARGS) tests/fault/test_kept_kills.py tests/fault/test_session_faults.py tests/contract/test_session_tools.py

bench: setup packages ## figures beside those of peers, in one run
	sh packaging/setup.sh $(PYTHON) $(VENV) dev,bench
	$(BIN)/python -m compileall -q $(PACKAGES)
	PYTHONPATH=tests $(BIN)/python -m bench.run $(ARGS)

demo: $(USE) ## show the main job for real; HOST=alias uses your own host
	@$(BIN)/holdfast demo $(HOST)

build: setup ## wheel and sdist into dist/
	$(BIN)/python -m build --outdir dist

clean: ## remove what was made here
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
