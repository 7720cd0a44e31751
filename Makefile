# Two commands: `make run` and `make test`; each sets up what is missing first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: run test lint setup bubblewrap clean

run: $(STAMP) bubblewrap
	$(BIN)/archwright run

test: $(STAMP) bubblewrap
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --durations 25

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(STAMP) bubblewrap

# torch first and pinned: an unpinned torch pulls gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard search_space/native/*.cpp search_space/native/*.h) search_space/native/build.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The best isolation of written code needs Debian's bubblewrap; root may install it, others are told how.
bubblewrap:
	@command -v bwrap >/dev/null || { test "$$(id -u)" = 0 && { apt-get install -qy bubblewrap || \
	  { apt-get -q update && apt-get install -qy bubblewrap; }; } >/dev/null 2>&1; } || \
	  echo "bubblewrap is missing: type 'sudo apt-get install bubblewrap', then 'archwright doctor'"

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
