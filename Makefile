# Everything runs in .venv, which is made once. Nothing but Python 3.11 or later is needed.
# The first Python that runs and is new enough; say another with make PYTHON=/path/to/python.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

# Idle OpenMP threads that spin cost tenfold on a busy machine; no test may reach a hub.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test slow lint types docs bench install clean

demo: install  ## the main job, on data that ships
	$(BIN)/milan run --fast

# a process a core, each with one thread; files in their order, for the longest have few tests
test: export HF_HUB_OFFLINE = 1
test: export OMP_NUM_THREADS = 1
test: install  ## everything that takes seconds
	$(BIN)/pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

slow: export HF_HUB_OFFLINE = 1
slow: install  ## what takes minutes, and the real data where it is available
	$(BIN)/pytest -q -m slow -s

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

docs: install  ## the pages, in build/docs; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: export HF_HUB_OFFLINE = 1
bench: install  ## costs, as ratios measured in one run
	$(BIN)/python -m bench

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later was found. Say which: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into .venv (once; some minutes, most of them for torch)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable ".[offline,dev,docs]"
	@# on all cores; some packages carry files of other Pythons, which need not compile
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null 2>&1 || true
	@touch $(STAMP)

clean:
	rm -rf .venv build dist
