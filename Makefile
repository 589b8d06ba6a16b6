# Everything needs only Python >= 3.10 with venv, and make. `make lock` also needs uv.
#   make test PYTHON=python3.12 VENV=.venv312    another Python, in an environment of its own
PYTHON ?= python3
VENV ?= .venv
UV ?= uv
BIN := $(VENV)/bin
PINS := .ci/constraints.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test emulated lint docs bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed ## create .venv with everything that the demo and the tests need

demo: venv ## convert, verify and measure EfficientNet-Lite0 on this machine
	$(BIN)/edgeeff demo

# A module stays in one process; the slow ones come first, so that no process is left with one of them at the end.
test: venv ## run the tests; pass options to pytest with ARGS='-k scaling'
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

emulated: ## build and switch on the emulated arm64 board; the tests on it: make test ARGS='-n 0 -m emulated'
	$(PYTHON) -m tests.integration.emulated

lint: venv ## ruff, mypy and the direction of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# -n and -W: a link to a page or a heading that is not there, or a page that no contents name, ends it.
docs: venv ## build the documentation as a site in build/docs, from docs/
	$(BIN)/python -m sphinx -q -n -W --keep-going -E docs build/docs
	@echo 'Open build/docs/index.html'

bench: venv ## all benchmarks, about an hour; options with ARGS='--list', '--full', '--write docs/results.md'
	$(BIN)/python -m tests.benchmarks $(ARGS)

lock: ## choose the versions and hashes anew where pyproject.toml asks for it
	$(UV) pip compile -q --universal --python-version 3.10 --generate-hashes --no-annotate \
	  --extra host --extra lite-weights --extra plot --extra report --group test --group lint --group docs \
	  --custom-compile-command 'make lock' --output-file $(PINS) pyproject.toml >/dev/null

clean: ## remove the environment and everything made by tools
	rm -rf $(VENV) build dist edgeeff-demo edgeeff.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed is what the pins say, by hash, from wheels: no compiler, no surprise.
NEEDED := (3, 10) <= sys.version_info[:2] <= (3, 13) and sys.platform.startswith("linux")
REFUSAL := the pins are for Linux and Python 3.10 to 3.13; choose one with: make PYTHON=python3.12

$(VENV)/.pinned: $(PINS)
	@$(PYTHON) -c 'import sys; $(NEEDED) or sys.exit("$(REFUSAL)")'
	@echo 'Installing TensorFlow, LiteRT and the tools into $(VENV): about 4 GB, a few minutes ...'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps --only-binary :all: --require-hashes --requirement $(PINS)
	@touch $@

# The project itself cannot carry a hash, so it is a step of its own; setuptools is among the pins.
$(VENV)/.installed: pyproject.toml $(VENV)/.pinned
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
