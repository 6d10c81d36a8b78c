# The words of everyday work. `make` lists them.

PYTHON ?= python3
VENV ?= .venv
SECONDS ?= 600
WORKERS ?= 3
COMPILED_UNITS = bundles compiled crew feeding frames jobclasses jobs ledger ledger_machine outcome pace process sent slate slave waiting wire
ON_COMPILED = tests/contract tests/distributed/test_bundles.py $(COMPILED_UNITS:%=tests/unit/test_%.py)
EXECUTORS = tests/executor/test_executor.py tests/executor/test_waiting.py tests/executor/test_ending.py tests/executor/test_joblib.py
RUN = $(VENV)/bin/python -m
TEST_SOURCES = $(RUN) pytest -n $(WORKERS) --dist worksteal --ignore=tests/chaos
STAMP = $(VENV)/.installed
COMPILED = build/compiled
IN_COMPILED = cd $(COMPILED) && $(abspath $(VENV))/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help venv demo compiled test coverage test-compiled test-engines chaos soak fuzz bench bench-short bench-record bench-growth lint types docs clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

# "compat", since the other mode has each Python process load a finder of modules, for 20 ms, which tests start by the thousand.
venv: $(STAMP) ## make a virtual environment with all that development needs, in .venv

$(STAMP): pyproject.toml
	@echo "making a virtual environment in $(VENV): a minute or two, the first time"
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -e '.[dev]' --config-settings editable_mode=compat
	@$(RUN) compileall -q papyros  # or each slave would do it anew where PYTHONDONTWRITEBYTECODE is set
	touch $@

demo: $(STAMP) ## run the demo on a cluster of this machine, unattended
	$(VENV)/bin/python examples/demo.py --yes --local-cluster

compiled: $(STAMP) $(COMPILED)/.built ## make a tree in build/compiled that is as users have it: with compiled rooms
	@rm -rf $(addprefix $(COMPILED)/,benchmarks docs examples tests)
	@cp -R benchmarks docs examples tests CHANGELOG.md LICENSE README.md pyproject.toml setup.py $(COMPILED)

$(COMPILED)/.built: setup.py pyproject.toml $(wildcard papyros/*.py papyros/*/*.py)
	@echo "compiling what is done for each job: a minute"
	@rm -rf $(COMPILED) build/temp
	@mkdir -p $(COMPILED)
	@$(VENV)/bin/python setup.py --quiet build --build-lib $(COMPILED) --build-temp build/temp > build/compiled.log 2>&1 || (cat build/compiled.log; false)
	@$(RUN) compileall -q $(COMPILED)/papyros
	@touch $@

# What waits leaves a seventh of two cores to the compiler, which works on one of them for a minute and a half.
test: $(STAMP) ## run the tests, all but the slow ones
	@nice -n 19 $(MAKE) compiled & compiled=$$!; $(TEST_SOURCES) -m "not slow and not alone and (pure or not compiled)"; tested=$$?; wait $$compiled && exit $$tested
	$(RUN) pytest --ignore=tests/chaos -m "alone and not slow"
	$(MAKE) test-compiled

coverage: $(STAMP) ## run the tests that need not run alone, and tell which lines none of them runs; takes half as long again
	$(TEST_SOURCES) -m "not slow and not alone" --cov --cov-report=term

test-compiled: compiled ## run the tests of the contract, of compiled rooms and of chaos on what users have
	$(IN_COMPILED) pytest -n $(WORKERS) --dist worksteal $(ON_COMPILED) -m "not slow and not alone and not pure" -k "multiprocess or test_bundles or unit"
	$(IN_COMPILED) pytest -n 2 --dist worksteal tests/chaos -m "not slow"

chaos: $(STAMP) ## run all tests of faults, the slow ones too
	$(RUN) tests.simulation 1-10000
	$(RUN) pytest tests/chaos tests/faults tests/simulation tests/distributed/test_crowd.py tests/unit/test_sweeping.py
	$(RUN) pytest tests/contract tests/executor -m slow -o faulthandler_timeout=900

test-engines: ## test on Dask, Ray, loky, MPI, scikit-learn and others, in an environment of their own
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test,engines]'
	.venv-engines/bin/python -m pytest tests/engines tests/executor -m "not slow"
	.venv-engines/bin/python -m pytest tests/docs -k "programs_of_a_page and coming"
	for engine in threadpool processpool loky dask ray; do PAPYROS_ENGINES=$$engine .venv-engines/bin/python -m pytest tests/contract $(EXECUTORS) -m "not slow" || exit 1; done

soak: compiled ## kill parts of a cluster for SECONDS=600 while it works
	$(IN_COMPILED) tests.chaos.soak --seconds $(SECONDS)

bench: compiled ## measure Papyros beside its peers, those that are installed; writes docs/benchmarks.md and a plot
	$(IN_COMPILED) benchmarks --into $(CURDIR)/docs

bench-short: compiled ## measure beside the standard library only; fails if a ratio fell by more than a third
	$(IN_COMPILED) benchmarks --short

bench-record: compiled ## record the ratios that bench-short compares with
	$(IN_COMPILED) benchmarks --record
	cp $(COMPILED)/benchmarks/reference.json benchmarks

bench-growth: compiled ## measure legs, growth and what one master carries, for docs/performance.md
	$(IN_COMPILED) benchmarks.profile_legs --into $(CURDIR)/docs/measured/legs.md
	$(IN_COMPILED) benchmarks.growth --into $(CURDIR)/docs/measured/growth.md
	$(IN_COMPILED) benchmarks.capacity --into $(CURDIR)/docs/measured/capacity.md
	$(IN_COMPILED) benchmarks.security --into $(CURDIR)/docs/measured/security.md

fuzz: $(STAMP) ## send 100,000 mutated frames to a master, before and after authentication
	PAPYROS_FUZZ_FRAMES=100000 $(RUN) pytest tests/fuzz -o faulthandler_timeout=1800

lint: $(STAMP) ## check style and format
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(STAMP) ## check types
	$(RUN) mypy

docs: $(STAMP) ## build the manual into docs/_build/html; warnings are errors
	$(RUN) sphinx -W --keep-going -b html docs docs/_build/html

clean: ## remove all that the other targets made
	rm -rf $(VENV) .venv-engines build dist *.egg-info docs/_build .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
