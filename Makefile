# `make demo` and `make test` build what they need: one virtual environment, .venv, made once.
PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

# Two stamps: an environment for the demo alone, and one with everything. Where everything is
# installed already, the demo needs nothing more.
DEMO := .venv/.installed-demo
ALL := .venv/.installed-all

.PHONY: demo test test-all lint clean
.NOTPARALLEL:

demo: $(or $(wildcard $(ALL)),$(DEMO))
	$(BIN)/unetpp-segment demo -o demo_output

test test-all: export QT_QPA_PLATFORM := offscreen

test: $(ALL)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: $(ALL)
	$(BIN)/python -m pytest -m "" $(PYTEST_ARGS)

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
	$(INSTALL) -e ".[demo,train,test]"
	touch $@

$(BIN)/pip:
	$(PYTHON) -m venv .venv
