# Each target makes what it needs: the environment first, in .venv. A second call skips what is done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test lint docs bench bench-peers mutate wheelhouse tools clean

help:
	@echo "make install      make the environment in .venv"
	@echo "make demo         tune, record, replay and report: the main job, into out/demo"
	@echo "make test         lint, types and all tests"
	@echo "make docs         the documentation site, into docs/_build/html"
	@echo "make bench        speed of the kernels, as ratios"
	@echo "make bench-peers  SCALE-Sim and ZigZag timed beside ours, in environments of their own"
	@echo "make mutate       seeded faults, each of which the tests must catch"
	@echo "make wheelhouse   gather wheels for a GPU node without internet (PY=3.12)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "== environment: .venv (the first time takes minutes and about 2 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo,dev]"
	@touch $(STAMP)
	@echo "== environment: ready"

demo: $(STAMP)
	@echo "== demo: into out/demo; stop it at any time, the same command goes on"
	@$(BIN)/simkit demo --out out/demo

lint: $(STAMP)
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

test: $(STAMP) lint tools
	@echo "== tests"
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q

bench: $(STAMP)
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=min,median,max -q -p no:xdist
	@$(BIN)/python tests/benchmarks/growth.py out/bench

bench-peers: $(STAMP)
	@$(BIN)/python tests/benchmarks/peers out/peers

docs: $(STAMP)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "== documentation: docs/_build/html/index.html"

mutate: $(STAMP) tools
	@$(BIN)/python -m simkit.validation.rtl.mutate

PY ?= 3.12
wheelhouse: $(STAMP)
	@$(BIN)/python -m simkit.measure.wheelhouse --python $(PY)

clean:
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache
