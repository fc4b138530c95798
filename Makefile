# Fresh machine: `make demo` sets everything up and runs the main job, `make test` the tests.
#   PYTHON=python3.12      the interpreter of the environment
#   SOLO_LEARN=...         a pip requirement or the path of a checkout; default: the release on the
#                          package index with patches/solo-learn-1.0.2. `make demo` needs the release
#                          (a checkout has scripts of its own), `make test` takes either.
PYTHON ?= python3
SOLO_LEARN ?= solo-learn==1.0.2
VENV ?= .venv
RUNS ?= demo
BIN = $(abspath $(VENV))/bin
RELEASE = solo-learn-1.0.2
SOURCES = pyproject.toml $(shell find solo_ood configs hydra_plugins -name '*.py' -o -name '*.yaml')
SHIPPED = losses/test_dino.py methods/test_dino.py methods/test_linear.py utils/test_knn.py \
	utils/test_checkpointer.py utils/test_auto_resumer.py utils/test_metrics.py \
	utils/test_gather.py utils/test_filter.py utils/test_kmeans.py
# Networks this small are trained several times slower by two threads than by one.
THREADS ?= 1

SUDO = $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo study bench bench-scorers gpu-kit test test-fast browser test-long test-upstream compatibility check docs install clean

demo: install
	OMP_NUM_THREADS=$(THREADS) PYTHONWARNINGS=ignore sh scripts/demo.sh $(BIN) $(RUNS)

# Does replay help? All arms on long-tailed digits, 5 paired seeds and class orders.
study: install
	PYTHONWARNINGS=ignore $(BIN)/solo-ood study digits-lt --out $(RUNS)/study

# Time training steps: dino_ood beside stock DINO.
bench: install
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -W ignore tools/bench.py --out $(RUNS)/bench

# Time the scorers alone, beside other libraries.
bench-scorers: install
	$(BIN)/python -m pip install -q '.[benchmark]'
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -W ignore tools/benchmark_scorers.py

# A folder for a machine with a GPU and no network: see tools/gpu/build.py.
gpu-kit: install
	$(BIN)/python -W ignore tools/gpu/build.py $(if $(DATA),--data '$(DATA)')

# Several files at a time: each process holds about 3 GB. The order is that of tests/conftest.py.
test: install
	$(BIN)/python -m pip install -q '.[test]'
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=15
	if [ -d .host/$(RELEASE) ] && [ '$(SOLO_LEARN)' = '$(subst learn-,learn==,$(RELEASE))' ]; then \
		cd .host/$(RELEASE) && OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -W ignore \
			-p no:cacheprovider $(addprefix tests/,$(SHIPPED)); fi

# What needs neither the host nor a process of its own.
test-fast: install
	$(BIN)/python -m pip install -q '.[test]'
	$(BIN)/pytest -q -n auto --maxprocesses 4 --dist loadfile tests/unit

# Debian's Chromium and its driver, with which the tests open the reports; without them those skip.
browser:
	command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq chromium chromium-driver; }

# What takes longer than CI should, such as 20,000 steps of the scoring path.
test-long: install
	$(BIN)/python -m pip install -q '.[test]'
	$(BIN)/pytest -m long -s

# Both want SOLO_LEARN_CHECKOUT=PATH, a git checkout of solo-learn's main branch, and only read it.
test-upstream: install
	$(BIN)/python -m pip install -q '.[test,umap,upstream,nox]'
	$(BIN)/nox -s series

compatibility: install
	$(BIN)/python -m pip install -q '.[test,umap,nox]'
	$(BIN)/nox -s today pins lowest table

check: install docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy solo_ood

# The pages of docs/ and the API as a site, build/site/index.html; a broken link is an error.
docs: install
	$(BIN)/python -m pip install -q '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

install: $(VENV)/.installed
	@$(BIN)/python tools/install_host.py --spec '$(SOLO_LEARN)'

$(VENV)/.installed: $(SOURCES)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	rm -rf build && $(BIN)/python -m pip install .
	touch $@

clean:
	rm -rf $(VENV) .host build *.egg-info demo .matrix .nox
