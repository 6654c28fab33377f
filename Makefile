# A fresh checkout needs Python 3.11 or newer, make and a C++ compiler; every target sets up what it needs, once.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
JOBS ?= 2
ARGS ?=
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url https://download.pytorch.org/whl/$(TORCH_INDEX))
# Stamps: what is installed is newer than what says what to install.
MADE := $(VENV)/.made
DEMO := $(VENV)/.demo
DEV := $(VENV)/.dev
BROWSER := $(VENV)/.browser

# The threads of torch's OpenMP spin while they wait, which is ten times slower as soon as anything else runs.
export OMP_WAIT_POLICY = PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo test check setup bench clean

help:
	@echo "make demo    train and sample small models, and show every step in demo/index.html (a few minutes)"
	@echo "make test    run the tests                          JOBS=2 processes, ARGS='--slow -k samplers'"
	@echo "make check   lint, format, types, import floors, spelling"
	@echo "make bench   the measurements in benchmarks/"
	@echo "make setup   only create $(VENV) with everything for development"
	@echo "make clean   remove caches, builds and the demo; runs/ and $(VENV) stay"
	@echo
	@echo "PYTHON=python3.12    the interpreter to create $(VENV) with (3.11 or newer)"
	@echo "TORCH_INDEX=cpu      take torch from PyTorch's own index: cpu, or cu130 and the like for a GPU; without it"
	@echo "                     torch comes from where pip is set to look, which on Linux is a large build for NVIDIA GPUs"

demo: $(DEMO)
	@$(BIN)/unnoise demo

test: $(DEV) $(BROWSER)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(ARGS)

check: $(DEV)
	@failed=; \
	for tool in "ruff check ." "ruff format --check ." mypy "lint-imports --no-logo" codespell; do \
		echo "== $$tool"; $(BIN)/$$tool || failed="$$failed $${tool%% *}"; \
	done; \
	if [ -n "$$failed" ]; then echo "make check failed:$$failed" >&2; exit 1; fi

bench: $(DEV)
	@for bench in benchmarks/[!_]*.py; do echo "== $$bench"; $(BIN)/python $$bench $(ARGS) || exit 1; done

setup: $(DEV) $(BROWSER)

clean:
	@rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "unnoise needs Python 3.11 or newer, and '$(or $(PYTHON),python3)' is not: name one with PYTHON=..." >&2; exit 1; \
	fi
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(DEMO): $(MADE) pyproject.toml constraints.txt
	@echo "installing unnoise and what the demo needs into $(VENV) (minutes when torch must be downloaded)"
	@$(INSTALL) -e '.[demo]'
	@touch $@

$(DEV): $(MADE) pyproject.toml constraints.txt
	@echo "installing unnoise and what its tests need into $(VENV) (minutes when torch must be downloaded)"
	@$(INSTALL) -e '.[dev]'
	@# Samplers are compared with a single file of it; what the whole depends on (torchvision, CLIP, wandb) is not wanted.
	@$(INSTALL) --no-deps k-diffusion
	@touch $(DEMO) $@

# The studio is tested in a browser. Where none is found, one is fetched if that can be done; if not, the tests say so.
$(BROWSER): $(DEV)
	@if ! $(BIN)/python tests/studio/browser.py; then \
		echo "fetching a Chromium for the tests of the studio"; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			(apt-get update && apt-get install -y --no-install-recommends chromium-headless-shell) >/dev/null 2>&1 || true; \
		fi; \
		$(BIN)/python tests/studio/browser.py || timeout 300 $(BIN)/python -m playwright install chromium-headless-shell \
			>/dev/null 2>&1 || true; \
		$(BIN)/python tests/studio/browser.py || echo "no Chromium could be had: the browser tests of the studio will not run"; \
	fi
	@touch $@
