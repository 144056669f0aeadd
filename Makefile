# Everything a person or a build does here. Needs Python 3.11 with pip, and make; with a newer
# Python also a redis-server on the PATH.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench lock clean

setup: .venv/.developer  ## the environment with everything for development

# The two stamps hold the hashed locks that were installed, so that a changed lock installs again.
.venv/.runtime: requirements/runtime.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what Tidemill runs on (once, about a minute) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/runtime.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.developer: requirements/dev.txt .venv/.runtime
	@echo "Installing what the tests need ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

demo: .venv/.runtime  ## the whole loop on real flights, in about a minute and a half
	@$(BIN)/tidemill demo

test: .venv/.developer  ## every test; the longest come first, so that no core waits at the end
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests

check: .venv/.developer  ## format, lint, types, architecture, spelling, then the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/codespell platform training serving feature_repo tests docs README.md CHANGELOG.md
	$(MAKE) test

bench: .venv/.developer  ## compare with the peers; prints ratios, writes benchmarks.json
	$(BIN)/python tests/benchmarks/__main__.py

lock:  ## write the hashed locks anew from pyproject.toml (needs uv)
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
		pyproject.toml requirements/build.in -o requirements/runtime.txt
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
		pyproject.toml requirements/build.in --extra postgres -c requirements/runtime.txt -o requirements/production.txt
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
		pyproject.toml requirements/build.in --group dev -c requirements/runtime.txt -o requirements/dev.txt

clean:  ## what runs and builds left behind, but not the environment
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache feature_repo/data feature_repo/.tidemill
