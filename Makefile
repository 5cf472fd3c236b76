# Two commands do all the set-up on a fresh machine: `make run` and `make test`. Python 3.11 and pip are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test lint clean

run: $(VENV)/.run
	@$(BIN)/rmpipe run pocket

test: $(VENV)/.test
	@$(BIN)/python -m pytest

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# constraints.txt holds the tested set: every package at one version.
$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 15) else f"rmpipe needs Python 3.11 to 3.14, this is {sys.version.split()[0]}; say make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing rmpipe into $(VENV) (about 2 GB, some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV)
