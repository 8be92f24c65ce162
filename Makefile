# `make demo` and `make test` build what they need: one virtual environment, .venv, made once.
PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

# Two stamps: an environment for the demo alone, and one with everything. Where everything is
# installed already, the demo needs nothing more.
DEMO := .venv/.installed-demo
ALL := .venv/.installed-all

.PHONY: demo test test-all lint pictures clean
.NOTPARALLEL:

demo: $(or $(wildcard $(ALL)),$(DEMO))
	$(BIN)/unetpp-segment demo -o demo_output

test test-all: export QT_QPA_PLATFORM := offscreen

# Two processes, each with the files that the other has not taken up. PYTEST_ARGS="-n 0 FILE" runs one file in one process.
test: $(ALL)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

# With several threads, as a user's torch has.
test-all: export OMP_NUM_THREADS ?= 2
test-all: $(ALL)
	$(BIN)/python -m pytest -m "" $(PYTEST_ARGS)

# The README's pictures, from real runs, without a screen. They need Chromium.
pictures: export QT_QPA_PLATFORM := offscreen
pictures: $(ALL)
	$(BIN)/python -m pytest -m "" Testing/make_pictures.py

lint: $(ALL)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Keeps .venv (gigabytes to fetch again) and runs/ (hours to train again).
clean:
	rm -rf demo_output build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./.venv/*" -prune -exec rm -rf {} +

$(DEMO): pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e ".[demo]"
	touch $@

$(ALL): pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e ".[demo,train,test,app]"
	touch $@

$(BIN)/pip:
	$(PYTHON) -m venv .venv
