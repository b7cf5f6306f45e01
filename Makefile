# Everything runs from here; `make help` lists the verbs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
USE := $(VENV)/.use
PACKAGES := proto/holdfast daemon/holdfast_daemon shim/holdfast_shim
# Half of it waits, for limits and for hosts: three for each of two cores.
WORKERS ?= 6
CYCLES ?= 10000
MINUTES ?= 30

.DEFAULT_GOAL := help
.PHONY: help setup packages proto proto-check format lint types test test-install release-check docs soak bench demo recording build clean

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
	@if command -v shellcheck >/dev/null; then shellcheck packaging/*.sh tests/service/*.sh tests/install/*.sh .ci/run && shellcheck -e SC2154,SC2034,SC2015 daemon/holdfast_daemon/kept/host/*.sh; else echo 'no shellcheck here'; fi

types: setup ## mypy --strict and pyright strict, over code and tests
	$(BIN)/mypy
	$(BIN)/pyright

test: setup packages ## the test suite, against a real sshd
	$(BIN)/python -m compileall -q $(PACKAGES)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder $(if $(ARGS),$(ARGS),-m 'not timed')
	$(if $(ARGS),,PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 0 -m timed)

test-install: setup packages ## the image's own steps without an engine, the service of each way to install, a release
	$(BIN)/python -m pytest -n 0 $(ARGS) tests/install

release-check: setup packages ## wheel and sdist: what is in them, and installed by pip, pipx and uv
	$(BIN)/python -m pytest -n 0 $(ARGS) tests/install/test_release.py tests/install/test_release_installed.py

test-clients: setup packages ## real MCP clients, installed by npm into ~/.cache/holdfast-clients
	$(BIN)/python -m pytest -n 0 $(ARGS) tests/clients

soak: setup packages ## the long tests; MINUTES=30 of a mixed load, CYCLES=10000 connects
	HOLDFAST_IDLE_SECONDS=600 $(BIN)/python -m pytest -s $(ARGS) tests/soak/test_idle.py
	HOLDFAST_SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -s $(ARGS) tests/soak/test_mixed_load.py
	HOLDFAST_CYCLES=$(CYCLES) $(BIN)/python -m pytest -n 2 $(ARGS) tests/soak/test_cycles.py
	HOLDFAST_KEPT_KILLS=46 HOLDFAST_SESSION_MIB=1024 HOLDFAST_SESSION_CUTS=200 HOLDFAST_SESSION_RUNS=500 \
		HOLDFAST_SHIM_KILLS=200 HOLDFAST_MODEL_STEPS=2000 HOLDFAST_RUN_MIB=256 HOLDFAST_RUN_KILLS=40 \
		$(BIN)/python -m pytest -n 2 $(ARGS) \
		tests/fault/test_kept_kills.py tests/fault/test_session_faults.py tests/fault/test_session_turns.py \
		tests/fault/test_session_orphans.py tests/fault/test_session_model.py tests/fault/test_session_failpoints.py \
		tests/fault/test_run_adopted.py
	HOLDFAST_SPARSE_MIB=2048 $(BIN)/python -m pytest -n 1 --timeout 600 $(ARGS) tests/contract/test_copy_holes.py
	HOLDFAST_COPY_MIB=1024 HOLDFAST_COPY_CUTS=200 HOLDFAST_COPY_RESTART_MIB=128 HOLDFAST_COPY_KILLS=25 \
		$(BIN)/python -m pytest -s --timeout 3600 $(ARGS) tests/fault/test_copy_faults.py tests/fault/test_copy_restarts.py
	HOLDFAST_ENDLESS_SECONDS=60 $(BIN)/python -m pytest -s $(ARGS) tests/fault/test_session_endless.py
	HOLDFAST_SERVICE_SESSIONS=100 $(BIN)/python -m pytest -s --timeout 600 $(ARGS) tests/service/test_service_install.py tests/service/test_stop_sessions.py

bench: setup packages ## figures beside those of peers, in one run
	sh packaging/setup.sh $(PYTHON) $(VENV) dev,bench
	$(BIN)/python -m compileall -q $(PACKAGES)
	PYTHONPATH=tests $(BIN)/python -m bench.run $(ARGS)

docs: setup ## the documentation and man pages, into dist/
	sh packaging/setup.sh $(PYTHON) $(VENV) dev,docs
	$(BIN)/python packaging/reference.py
	$(BIN)/python packaging/reference.py man dist/man
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

demo: $(USE) ## show the main job for real; HOST=alias uses your own host
	@$(BIN)/holdfast demo $(HOST)

recording: setup ## record the demo anew, into docs/demo.cast
	$(BIN)/python packaging/recording.py docs/demo.cast

build: setup ## wheel and sdist into dist/
	$(BIN)/python -m build --outdir dist

clean: ## remove what was made here
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
