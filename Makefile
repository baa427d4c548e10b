# make reproduce        the paper's MNIST experiments, from nothing to Figure 1 and the table
# make reproduce-quick  the same path in a few minutes: all of MNIST, few epochs
# make figures          redraw figure and table from the recorded runs; never trains
# make test, make lint  the tests; the linter
# make test-cpus        some tests with code for other processors, as far as this one runs it

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: reproduce reproduce-quick figures test test-cpus lint clean

reproduce: $(VENV)/installed
	$(BIN)/python reproduce/run_all.py

reproduce-quick: $(VENV)/installed
	$(BIN)/python reproduce/run_all.py --quick

figures: $(VENV)/installed
	$(BIN)/python reproduce/figures.py

test: $(VENV)/installed-test
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-cpus: $(VENV)/installed-test
	$(BIN)/python tests/on_cpus.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/installed: setup.cfg setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than 3.11: name a newer one, as in make PYTHON=python3.12"; exit 1; }
	@echo "Installing reinforce-dropout and what it needs into $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "Installing what the tests need ..."
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

# Recorded runs and figures are part of the repository and stay; so do your own runs in runs/.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
