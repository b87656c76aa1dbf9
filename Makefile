# Every routine job of Pyrite, one target each. `make` alone lists them.
# The only things a machine needs beforehand: Linux, Python >= 3.11 and a Rust toolchain.

PYTHON  ?= python3
VENV    ?= .venv
# `fast` is release code without link-time optimisation; cargo's tests and the wheel share its artefacts.
PROFILE ?= fast
# How many test processes: 2 is the smallest machine we promise to be quick on.
JOBS    ?= 2

PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip --disable-pip-version-check --quiet
STAMPS  := $(VENV)/.stamps
# Everything the compiled module is made from.
RUST_SOURCES := $(shell find crates -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.cuh' -o -name '*.cu' -o -name '*.h' \) 2>/dev/null) Cargo.toml Cargo.lock pyproject.toml
export CARGO_TERM_COLOR ?= auto
# A Python that is not the virtual environment's must not leak into it.
unexport PYTHONPATH PYTHONHOME
# maturin installs into the environment that this names.
export VIRTUAL_ENV := $(abspath $(VENV))
unexport CONDA_PREFIX

.DEFAULT_GOAL := help
.PHONY: help venv build demo test tiny pytest cargo-test check format gen gen-check bench wheel gpu clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMPS)/venv ## make the virtual environment .venv

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit("Pyrite needs Python >= 3.11, $(PYTHON) is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@command -v cargo >/dev/null || { echo "Pyrite's core is Rust: install a Rust toolchain (rustup) first"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip 'maturin>=1.16,<2'
	@mkdir -p $(STAMPS) && touch $@

build: $(STAMPS)/build-$(PROFILE) ## compile the core and install Pyrite into .venv (PROFILE=fast|release|dev)

# Editable: Python sources are used from python/, so only a change in Rust needs a build.
$(STAMPS)/build-$(PROFILE): $(STAMPS)/venv $(RUST_SOURCES)
	$(VENV)/bin/maturin develop --profile $(PROFILE)
	@rm -f $(STAMPS)/build-*; touch $@

# The extras are asked of pip by name from pyproject.toml, so that there is one list of them.
$(STAMPS)/extra-%: $(STAMPS)/venv pyproject.toml
	$(PY) -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$*']))" > $(STAMPS)/$*.txt
	$(PIP) install -r $(STAMPS)/$*.txt
	@touch $@

demo: ## set up everything, train LeNet-5 on 9,000 real digits, write demo.png
	@$(MAKE) --no-print-directory PROFILE=release build $(STAMPS)/extra-demo
	$(PY) examples/lenet.py --out demo.png

test: build $(STAMPS)/extra-test ## install what tests need and run them all: Rust, generated files, Python
	@$(MAKE) --no-print-directory cargo-test
	@$(MAKE) --no-print-directory gen-check
	@$(MAKE) --no-print-directory pytest

cargo-test: ## the Rust tests alone
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --exclude pyrite-py --cargo-profile $(PROFILE) --no-fail-fast; \
	else \
		cargo test --workspace --exclude pyrite-py --profile $(PROFILE) --no-fail-fast; \
	fi

pytest: build $(STAMPS)/extra-test ## the Python tests alone (ARGS='-k view' passes options on)
	$(PY) -m pytest -n $(JOBS) $(ARGS)

tiny: build $(STAMPS)/extra-test ## a few seconds of tests: what a newcomer types
	$(PY) -m pytest -q -x tests/test_tiny.py

check: build $(STAMPS)/extra-dev ## formatting, clippy, ruff, mypy, stubtest, freshness of generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --profile $(PROFILE) -- -D warnings
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/stubtest pyrite._C --allowlist tools/stubtest-allowlist.txt --ignore-disjoint-bases
	@$(MAKE) --no-print-directory gen-check

format: $(STAMPS)/extra-dev ## rewrite all sources in the house format
	cargo fmt --all
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

gen: build ## regenerate the stub _C.pyi and docs/ops.md from the op registry
	$(PY) tools/gen.py

gen-check: build
	$(PY) tools/gen.py --check

bench: ## compare with PyTorch in interleaved processes (ARGS='--filter matmul'); release build
	@$(MAKE) --no-print-directory PROFILE=release build
	$(PY) benches/compare/run.py $(ARGS)

array-api: build $(STAMPS)/extra-test ## run the array API standard's own suite (SUITE=a checkout of data-apis/array-api-tests)
	$(PY) tools/array_api_suite.py $(SUITE) $(ARGS)

wheel: $(STAMPS)/venv ## build the release wheel into dist/
	$(VENV)/bin/maturin build --release --out dist
	@ls -l dist/*.whl

gpu: ## on a machine with an NVIDIA GPU: install dist's wheel, run the device tests, print figures
	$(PYTHON) tools/gpu_check

clean: ## remove .venv, dist and all build outputs
	rm -rf $(VENV) dist target demo.png python/pyrite/_C*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
