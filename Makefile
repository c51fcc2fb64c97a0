# make demo   the main job on embedded real data: verdict, plots, report (sets up .venv on first use)
# make test   the tests (sets up .venv on first use)
# make check  format, lint, types, floors and all tests, the slow ones too
# make notebooks  execute notebooks/*.py and write them with their outputs as .ipynb; NAMES=6_streaming: that one, QUICK=1: small
# make bench  the measured figures that the documents quote
# make bench-kernels  the scan kernels against their peers on this machine's CPU

.DEFAULT_GOAL := help
.PHONY: help demo test check notebooks bench bench-kernels clean
VENV := .venv
RUN := $(VENV)/bin

# The first interpreter that runs and is new enough; override with `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

help:
	@sed -n 's/^# make/make/p' Makefile

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 2; }
	@echo "Setting up $(VENV) (once; a few minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@echo "Adding the development tools to $(VENV) ..."
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.ready
	@$(RUN)/ssmfin run configs/sp500_volatility.yaml

# Two workers of one thread each: more threads than cores run up to ten times slower.
test: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 -m "not slow" -q

check: $(VENV)/.ready-dev
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 -q

notebooks: $(VENV)/.ready-dev
	@OMP_NUM_THREADS=1 $(RUN)/python notebooks/build.py $(if $(QUICK),--quick) $(NAMES)

bench: $(VENV)/.ready-dev
	@for script in tests/benchmarks/bench_*.py; do echo "== $$script"; OMP_NUM_THREADS=1 $(RUN)/python $$script || exit 1; done

bench-kernels: $(VENV)/.ready-dev
	@for script in $(filter-out %/common.py,$(wildcard kernels/benchmarks/*.py)); do \
		echo "== $$script"; $(RUN)/python $$script --device cpu || exit 1; done

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
