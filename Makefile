# Every target runs in .venv, which make creates once and updates when the dependencies change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo cluster-demo test check bench chaos fuzz format

demo: $(READY)
	$(BIN)/python jobs/demo.py --output demo-output

# A cluster on this machine, used as cluster/README.md says.
cluster-demo: $(READY)
	$(BIN)/python -m tests.cluster.demo --output cluster-demo-output

# Two processes: many tests wait for Ray's processes to start. The slow files start first (tests/conftest.py).
test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m tests.benchmarks

chaos: $(READY)
	$(BIN)/python -m tests.chaos

# make fuzz N=10000 SEED=1
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --cases $(or $(N),10000) --seed $(or $(SEED),0)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; pass PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $(READY)
