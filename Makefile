# Everything this repository does, by name: `make` alone lists it.
# Needs GNU make 3.81 or newer and Python 3.10 to 3.13; builds its own environment in .venv.

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready# written last: without it a set-up was cut off, and is done again from nothing

# PYTHON=…       the Python to build .venv from; by default the newest supported one that runs
# TORCH_INDEX=…  a package index to take torch and torchvision from, such as one of CPU wheels
# LAB=…          more options for JupyterLab
# ONLY=…         the notebooks to execute, such as ONLY="00 03"; by default all of them
# UPGRADE=1      let `make lock` move to newer versions
SUPPORTED = import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3.10 python3; do \
	"$$python" -c '$(SUPPORTED)' >/dev/null 2>&1 && { echo "$$python"; break; }; done)
PIP = $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on
NBVAL = --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout=300
UV_COMPILE = $(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --quiet \
	--no-header --annotation-style line --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

.PHONY: help course test lab notebooks bench reference lint lock clean distclean
.DEFAULT_GOAL := help

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Options:"
	@awk '/^# [A-Z_]+=/ { sub(/^# /, "  "); print }' Makefile

course: $(READY) ## run the whole course: reports, phantom radiographs, training, zero-shot table
	$(BIN)/cmlr course

test: $(READY) ## pass every check and test: lint, units, the course, then every notebook
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest
	$(BIN)/cmlr course
	$(BIN)/python -m pytest $(NBVAL) notebooks

lab: $(READY) ## open the notebooks in JupyterLab
	cd notebooks && ../$(BIN)/jupyter lab $(LAB)

notebooks: $(READY) ## execute the notebooks and save them with their outputs
	$(BIN)/cmlr course
	$(BIN)/python notebooks/build.py $(ONLY)

bench: $(READY) ## measure speed, of the losses beside plain loops, into benchmarks/*.md
	$(BIN)/python benchmarks/local_loss.py
	$(BIN)/python benchmarks/pixels.py
	$(BIN)/python benchmarks/phantom.py

reference: course ## make README's table and picture those of this machine's `make course`
	$(BIN)/python docs/update_reference.py

lint: $(READY) ## check and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## resolve pyproject.toml into requirements.lock (UPGRADE=1 for newer versions)
	cp requirements.lock $(VENV)/requirements.lock
	$(UV_COMPILE) --output-file $(VENV)/requirements.lock
	{ sed -n '/^#/p;/^[^#]/q' requirements.lock; \
	  grep -Ev '^( |#|cuda-|nvidia-|triton==)' $(VENV)/requirements.lock; } > $(VENV)/new.lock
	mv $(VENV)/new.lock requirements.lock

clean: ## remove the cache, the trained model, the results and build products
	rm -rf build dist *.egg-info results data/cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv too
	rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || { \
	  echo "Python 3.10 to 3.13 with its venv module is needed, and $(if $(PYTHON),$(PYTHON) is none,none was found):" \
	    "install one, or name it as in make PYTHON=/path/to/python3.12."; exit 1; } >&2
	@if [ -f $@ ] && $(BIN)/python -c '' 2>/dev/null; then mv $@ $@.old; else \
	  echo "Building $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv --clear $(VENV); fi
	@{ { [ -z "$(TORCH_INDEX)" ] || { grep -E '^torch(vision)?==' requirements.lock > $(VENV)/torch.lock && \
	      $(PIP) --no-deps --index-url "$(TORCH_INDEX)" -r $(VENV)/torch.lock; }; } && \
	   $(PIP) -r requirements.lock && $(PIP) --no-deps --no-build-isolation -e .; } || { \
	  [ ! -f $@.old ] || mv $@.old $@; \
	  echo "The packages could not be installed, for the reason above: check the network and the free disk" \
	    "(8 GB with the CUDA libraries), then run make again."; exit 1; } >&2
	@rm -f $@.old; touch $@
