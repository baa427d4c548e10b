# make reproduce        the paper's MNIST experiments, from nothing to Figure 1 and the table
# make reproduce-quick  the same path in a few minutes: all of MNIST, few epochs
# make figures          redraw figure and table from the recorded runs; never trains
# make report           figures/report.html: all results on one page, from the recorded runs
# make ledger, tradeoff, systems   their sweeps, from nothing to table and figure
# make policy-search    the same for the paper's future work, and time its steps
# make random-search    better learning rates for the paper's network of 500 units
# make frontier         train networks and time them: error against time
# make play             docs/play/index.html: draw a digit, see a policy decide
# make docs             build/docs/index.html: the course, how-tos and reference; every page is run
# make test, make lint  the tests; the linter
# make test-cpus        some tests with code for other processors, as far as this one runs it
# make test-wheel       build the wheel, and train with it outside the clone

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: reproduce reproduce-quick figures report ledger tradeoff systems policy-search random-search frontier play docs test test-cpus test-wheel lint clean

reproduce: $(VENV)/installed
	$(BIN)/python reproduce/run_all.py

reproduce-quick: $(VENV)/installed
	$(BIN)/python reproduce/run_all.py --quick

report: $(VENV)/installed-report
	$(BIN)/python reproduce/report.py

ledger tradeoff: $(VENV)/installed
	$(BIN)/python reproduce/again.py $@

systems policy-search random-search frontier: $(VENV)/installed
	$(BIN)/python reproduce/$(subst -,_,$@).py

play: $(VENV)/installed-report
	$(BIN)/python reproduce/play.py

figures: $(VENV)/installed
	$(BIN)/python reproduce/figures.py

# -E reads every page again, because its cells depend on the code.
docs: $(VENV)/installed-docs
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m sphinx -E -W --keep-going -j 2 -c docs . build/docs

test: $(VENV)/installed-test
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-cpus: $(VENV)/installed-test
	$(BIN)/python tests/on_cpus.py

test-wheel: $(VENV)/installed-test
	.ci/wheel $(BIN)/python

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=. $(BIN)/lint-imports --no-cache
	$(BIN)/mypy

# Without --no-compile, pip compiles every module of every package, most of which are never imported.
# So what is imported must be kept compiled, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL = $(BIN)/python -m pip install --quiet --no-compile --editable

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than 3.11: name a newer one, as in make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg setup.py | $(VENV)/bin/pip
	@echo "Installing reinforce-dropout and what it needs into $(VENV) ..."
	$(PIP_INSTALL) .
	@touch $@

$(VENV)/installed-report: $(VENV)/installed
	$(PIP_INSTALL) '.[report]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	@echo "Installing what the book needs into $(VENV) ..."
	$(PIP_INSTALL) '.[docs]'
	@touch $@

# One call of pip, so that it builds the package once; it installs what `installed` stands for too.
$(VENV)/installed-test: setup.cfg setup.py | $(VENV)/bin/pip
	@echo "Installing reinforce-dropout and what the tests need into $(VENV) ..."
	$(PIP_INSTALL) '.[test]'
	@touch $(VENV)/installed $(VENV)/installed-report $@

# Recorded runs and figures are part of the repository and stay; so do your own runs in runs/.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
