# `make demo`, `make test` and `make check` need Python >= 3.11, make and the package registry; nothing else.
# Everything they install goes into .venv, everything they make into .demo and .cache.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
READERS := .cache/readers/.ready

.PHONY: demo test check dev ui browser lock clean bench matrix

$(READY): requirements/dev.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dataset_registry needs Python 3.11 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/dev.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY)  ## materialize the example pipeline on real data and show what the registry kept
	@$(BIN)/python -W "ignore:Parameter" -m dagster_assets.demo

test: $(READY) $(READERS) browser  ## the whole suite, on SQLite and on a real PostgreSQL
	$(BIN)/python -m pytest $(TEST_OPTIONS)

$(READERS): requirements/readers.txt $(READY)
	$(PYTHON) -m venv --clear --without-pip .cache/readers
	VIRTUAL_ENV=.cache/readers $(BIN)/uv pip install --quiet --require-hashes -r requirements/readers.txt
	@touch $(READERS)

check: $(READY)  ## format, lint, types, import rules, words, documentation site
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.words
	$(BIN)/python docs/site.py

dev: $(READY)  ## the Dagster UI on the example location
	$(BIN)/python -m dagster_assets.ui

ui: $(READY)  ## the pages of the example registry; PAGE=/reviews/1 opens a page of it
	$(BIN)/dataset-registry ui -r .demo/registry $(PAGE)

browser:  ## Debian's Chromium, which the tests of the pages drive
	@command -v chromium >/dev/null || (apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium >/dev/null) || echo "no Chromium: the tests of the pages in a browser are skipped"

bench: $(READY)  ## what a commit costs, beside its physical limit
	$(BIN)/python -m benchmarks

matrix: $(READY)  ## the wheel with the oldest and newest Dagster, SQLAlchemy 2.0 and 2.1; half an hour; not in `test`
	$(BIN)/python -m tests.matrix

lock: $(READY)  ## resolve the dependencies again
	echo "uv>=0.13,<0.14" | $(BIN)/uv pip compile - --universal --generate-hashes --no-annotate --no-header --upgrade -q -o requirements/uv.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade -q -o requirements/dev.txt
	$(BIN)/uv pip compile requirements/readers.in --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade -q -o requirements/readers.txt

clean:
	rm -rf .venv .demo .cache
