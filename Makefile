# `make train` and `make test` need only Python >= 3.11, git and make: the environment is made on first use.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

.PHONY: help train sweep benchmark check test test-optimized test-slow test-adapters robots
.PHONY: test-kinetix wheel proofs mutants faults notebooks links lint docs constraints clean
.DEFAULT_GOAL := help

# Before anything is installed: what an installer says of an older Python is of packages, not of Python.
PYTHON_CHECK = import sys; sys.version_info < (3, 11) and sys.exit( \
	"pg needs Python 3.11 or later, and $(PYTHON) is %d.%d: name another, as in make PYTHON=python3.12" \
	% sys.version_info[:2])

$(VENV)/.installed: pyproject.toml constraints.txt
	@if command -v $(PYTHON) >/dev/null 2>&1; then $(PYTHON) -c '$(PYTHON_CHECK)'; fi
	@if command -v uv >/dev/null 2>&1; then \
		echo "installing with uv into $(VENV) ..." && \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
		echo "installing with pip into $(VENV) ..." && \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r name text; do printf 'make %-14s %s\n' "$$name" "$$text"; done

train: $(VENV)/.installed  ## the train command; flags in ARGS="--estimator leave_one_out --seeds 20"
	$(BIN)/python experiments/train.py $(ARGS)

sweep: $(VENV)/.installed  ## settings × seeds in one program; flags in ARGS="--over learning_rate=1e-4:1e-2"
	$(BIN)/python experiments/sweep.py $(ARGS)

benchmark: $(VENV)/.installed  ## the suites of the results; flags in ARGS="--suite classic"
	$(BIN)/python experiments/benchmark.py $(ARGS)

# Of the core's tests those that are quick once their programs are compiled, the longest files first, so that both
# processes end together.
CHECKED := rollout estimators networks distributions returns config evaluation blocks baselines surrogates \
	signatures numerals
check: lint  ## linter, types and the core's quick tests, in about a minute: the inner loop
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(CHECKED:%=tests/core/test_%.py) $(ARGS)

test: $(VENV)/.installed  ## the fast tests, in two processes; more with ARGS="-n 8"
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# The scripts that tests start are run so too.
test-optimized: $(VENV)/.installed  ## the fast tests under `python -OO`, which strips docstrings and assertions
	PYTHONOPTIMIZE=2 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed  ## the tests that take longer
	$(BIN)/python -m pytest -m slow $(ARGS)

# Their libraries are no part of the development environment: this one is beside it.
ADAPTERS := brax,craftax,envpool,gymnasium,jumanji,navix,pgx,playground,xminigrid
ADAPTER_TESTS := tests/core/test_adapter_contract.py tests/core/test_adapters.py
$(VENV)-adapters/.installed: pyproject.toml constraints.txt
	@echo "installing with pip into $(VENV)-adapters ..."
	@$(PYTHON) -m venv $(VENV)-adapters
	@$(VENV)-adapters/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[dev,$(ADAPTERS)]'
	@# whose own dependencies would replace gymnax
	@$(VENV)-adapters/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt --no-deps popgym-arcade==0.0.7 dm-pix==0.4.5
	@touch $@

# Its jax is older than that of constraints.txt.
$(VENV)-kinetix/.installed: pyproject.toml
	@echo "installing with pip into $(VENV)-kinetix ..."
	@$(PYTHON) -m venv $(VENV)-kinetix
	@$(VENV)-kinetix/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,kinetix]' \
		kinetix-env==3.0.2
	@touch $@

test-adapters: $(VENV)-adapters/.installed  ## the adapters beside their libraries' own loops
	$(VENV)-adapters/bin/python -m pytest -m 'slow or not slow' $(ADAPTER_TESTS) $(ARGS)

robots: $(VENV)-adapters/.installed  ## for test-adapters: MuJoCo Menagerie, which Playground clones
	$(VENV)-adapters/bin/python -c \
		"from mujoco_playground._src.mjx_env import ensure_menagerie_exists as clone; clone()"

test-kinetix: $(VENV)-kinetix/.installed  ## the same of Kinetix, which needs an older jax
	$(VENV)-kinetix/bin/python -m pytest -m 'slow or not slow' -k kinetix $(ADAPTER_TESTS) $(ARGS)

wheel: $(VENV)/.installed  ## builds the wheel, and trains with it in an empty environment
	$(BIN)/python -m pytest -m slow tests/runs/test_wheel.py $(ARGS)

PROOFS := exact $(addprefix core/test_,continuous.py optimizers.py pathwise.py evolution.py)
proofs: $(VENV)/.installed  ## of the fast tests those that hold estimators against exact values
	$(BIN)/python -m pytest $(addprefix tests/,$(PROOFS)) $(ARGS)

mutants: $(VENV)/.installed  ## plants known bugs, one by one, and names the test that catches each
	$(BIN)/python tests/tools/mutants.py $(ARGS)

faults: $(VENV)/.installed  ## kills runs at random moments and compares what comes of them
	$(BIN)/python tests/tools/fault_injection.py $(ARGS)

links: $(VENV)/.installed  ## badges and Colab links from the address in pyproject.toml
	$(BIN)/python docs/tools/links.py

notebooks: $(VENV)/.installed  ## from each notebooks/NAME.py its .ipynb, without outputs
	$(BIN)/python notebooks/tools/pair.py

lint: $(VENV)/.installed  ## linter, formatter's check, type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(VENV)/.installed-docs: $(VENV)/.installed
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[docs]'; \
	else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'; \
	fi
	@touch $@

docs: $(VENV)/.installed-docs  ## the site, in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -E -W --keep-going -n docs docs/_build/html $(ARGS)

# Of older Pythons it says nothing, so that pip names the one that is needed.
constraints:  ## constraints.txt anew, with uv
	uv pip compile --universal --no-header --no-annotate --python-version 3.11 --extra dev --extra docs \
		pyproject.toml -o constraints.txt
	sed -i.old -E -e "s/ ; (.*)$$/ ; python_full_version >= '3.11' and (\\1)/" \
		-e "/;/! s/$$/ ; python_full_version >= '3.11'/" constraints.txt && rm constraints.txt.old

clean:  ## removes the environment
	rm -rf $(VENV)
