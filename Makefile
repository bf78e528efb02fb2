# What a person types. Environments are made when a target first needs them, and again when pyproject.toml changes.
# Settings, all optional:
#   PYTHON=python3.12   the interpreter that environments are made with
#   JAX=0.12.0.1        that version of JAX, in an environment of its own
#   UV=                 install with pip even where uv is there
#   ARGS='-k philox'    more arguments for pytest or a demo

PYTHON ?= python3
JAX ?=
UV ?= uv
ARGS ?=

VENV := .venv$(addprefix -,$(JAX))
AOT := .venv-aot$(addprefix -,$(JAX))
GPU := .venv-gpu$(addprefix -,$(JAX))
WORKERS := -n auto --maxprocesses 8 --dist loadgroup

# An interpreter is the user's to choose, not uv's to download; bytecode is made once, as pip does, not by each process.
export UV_PYTHON_DOWNLOADS := never
export UV_COMPILE_BYTECODE := 1

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:
# Two installs into one environment would trip over each other; pytest has its own workers.
.NOTPARALLEL:
.PHONY: help demo demo-bfloat16 test test-without-triton test-aot test-ptx test-aqt test-triton test-gpu gpu gpu-rehearsal bench bench-report static-report lint format types build clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' Makefile | while read -r name what; do \
		printf '  make %-19s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.demo ## train a small network at 8, 4, 2 and 1 bits beside float
	$(VENV)/bin/python examples/digits.py $(ARGS)

demo-bfloat16: $(VENV)/.demo ## train with bfloat16 weights, rounded to nearest and stochastically, beside float32
	$(VENV)/bin/python examples/bfloat16_weights.py $(ARGS)

test: $(VENV)/.test ## run the tests, but for those of test-aot, test-ptx and test-aqt
	$(VENV)/bin/python -m pytest $(WORKERS) -m "not aot and not aqt and not ptx" $(ARGS)

test-without-triton: $(VENV)/.test ## run the tests of CUDA kernels as on a JAX that has removed Pallas' Triton lowering
	TEST_WITHOUT_PALLAS_TRITON=1 $(VENV)/bin/python -m pytest $(WORKERS) -m "not aot and not aqt and not ptx" \
		--ignore intnumerics/kernels/pallas_triton $(ARGS)

test-aot: $(AOT)/.aot ## compile the kernels for GPUs and TPUs that need not be there (installs gigabytes)
	JAX_PLATFORMS=cpu $(AOT)/bin/python -m pytest -m aot tests $(ARGS)

test-ptx: $(AOT)/.aot ## run the compiled code of the CUDA kernels on a CPU, and compare its bits with NumPy
	JAX_PLATFORMS=cpu $(AOT)/bin/python -m pytest $(WORKERS) -m ptx tests $(ARGS)

test-aqt: $(VENV)/.test $(VENV)/.bench ## run the tests with AQT, those of AQT among them
	$(VENV)/bin/python -m pytest $(WORKERS) -m aqt tests/test_aqt*.py tests/test_flax_state.py $(ARGS)

test-triton: $(AOT)/.aot ## run the kernels of implementation="jax_triton" in Triton's interpreter
	TRITON_INTERPRET=1 $(AOT)/bin/python -m pytest $(WORKERS) -m interpreted tests $(ARGS)

test-gpu: ## run the tests that need a GPU, on PYTHON and the JAX that it has
	@$(PYTHON) -c '$(CHECK_JAX)'
	PYTHONPATH=. $(PYTHON) -m pytest -m gpu tests $(ARGS)

gpu: ## do all that waits for a GPU in five minutes, on PYTHON and what it has (ARGS='--minutes 9')
	@$(PYTHON) -c '$(CHECK_JAX)'
	PYTHONPATH=. $(PYTHON) -m bench.gpu --out out/gpu $(ARGS)

gpu-rehearsal: $(GPU)/.gpu ## the same on a CPU, tiny and interpreted, with the packages that a GPU machine has
	rm -rf out/gpu-rehearsal
	PYTHONPATH=. $(GPU)/bin/python -m bench.gpu --rehearsal --minutes 9 --out out/gpu-rehearsal $(ARGS)

bench: $(VENV)/.bench ## measure speed on the device that JAX finds: a table, and plots in out/bench (ARGS=--quick)
	$(VENV)/bin/python -m bench $(ARGS)
	$(VENV)/bin/python -m bench.report --results out/bench --docs out/bench

bench-report: $(VENV)/.bench ## write docs/benchmarks.md and its plots from bench/results
	$(VENV)/bin/python -m bench.report

static-report: $(AOT)/.aot ## compile for GPUs and TPUs, and write docs/static-report.md (half an hour)
	$(AOT)/bin/python -m bench.aot cuda --store >/dev/null
	$(AOT)/bin/python -m bench.aot jax_triton --store >/dev/null
	$(AOT)/bin/python -m bench.aot tpu --store >/dev/null
	$(AOT)/bin/python -m bench.aot.report

lint: $(VENV)/.lint ## check style and format, changing nothing
	$(VENV)/bin/ruff check --no-fix .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.lint ## rewrite the code in the project's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

types: $(VENV)/.types ## check types, strictly
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

build: $(VENV)/.test ## make the sdist and the wheel, in dist/
	$(VENV)/bin/python -m build --no-isolation

clean: ## remove all that these targets made, environments included
	rm -rf .venv .venv-* build dist *.egg-info htmlcov .coverage .benchmarks .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is a folder with a stamp for each set of packages that is in it, and a file that holds the command
# which installs more. PYTHON is in that file's name, so that another interpreter makes the environment anew.
INSTALLER := .installer-$(subst /,_,$(PYTHON))
STAMPS := $(addprefix $(VENV)/,.demo .test .bench .lint .types)

$(VENV)/.demo: PACKAGES = -e '.[demo]'
$(VENV)/.test: PACKAGES = -e '.[demo]' --group test
$(VENV)/.bench: PACKAGES = -e '.[bench]' --group baselines
$(VENV)/.lint: PACKAGES = --group lint
$(VENV)/.types: PACKAGES = -e . --group types
$(AOT)/.aot: PACKAGES = -e '.[triton]' --group test --group aot
$(GPU)/.gpu: PACKAGES = --group gpu-rehearsal

$(STAMPS): pyproject.toml $(VENV)/$(INSTALLER)
$(AOT)/.aot: pyproject.toml $(AOT)/$(INSTALLER)
$(GPU)/.gpu: pyproject.toml $(GPU)/$(INSTALLER)
$(STAMPS) $(AOT)/.aot $(GPU)/.gpu:
	@echo "installing into $(@D): $(PACKAGES)"
	@$$(cat $(@D)/$(INSTALLER)) $(PACKAGES) $(addprefix jax==,$(JAX))
	@touch $@

HAS_UV := $(if $(UV),$(UV) --version >/dev/null 2>&1,false)
CHECK_JAX := import importlib.util as u, sys; u.find_spec("jax") or sys.exit("no jax here, and this target installs nothing: set PYTHON= to an interpreter that has JAX")
CHECK_VERSION := import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: set PYTHON=")

$(VENV)/$(INSTALLER) $(AOT)/$(INSTALLER) $(GPU)/$(INSTALLER):
	@$(PYTHON) -c '$(CHECK_VERSION)'
	@echo "making $(@D)"
	@rm -rf $(@D)
	@set -e; if $(HAS_UV); then \
		$(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(@D); \
		echo "$(UV) pip install --quiet --python $(@D)/bin/python" >$@; \
	else \
		$(PYTHON) -m venv $(@D); \
		$(@D)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'; \
		if $(if $(UV),$(@D)/bin/python -m pip install --quiet uv,false); then \
			echo "$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python" >$@; \
		else \
			echo "$(@D)/bin/python -m pip install --quiet" >$@; \
		fi; \
	fi
