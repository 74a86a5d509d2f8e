# `make help` lists the targets. A failure to install is one line (see tools/install); make then ends with 2.
.DEFAULT_GOAL := help
BIN := .venv/bin
ARGS ?=

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install:  ## .venv with everything locked (TORCH_BACKEND=cpu: the small build of torch)
	@tools/install

demo: install  ## ingest real pictures, show one query, serve the page until Ctrl-C (ARGS="--once --json", ARGS="--images DIR")
	@$(BIN)/lookalike demo $(ARGS)

test: install  ## all tests but the browser's, on a real Kafka (ARGS="tests/unit -k name")
	@$(BIN)/pytest $(ARGS)

chaos: install  ## every fault with its real duration, 16 minutes (ARGS="-k kill_9"); figures in build/chaos.json
	@$(BIN)/pytest tests/chaos --chaos full $(ARGS)

check: install  ## style, types, import directions, the lock, the generated page of settings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/check_lock.py

test-page: install  ## the page in Debian's Chromium (root, to install it)
	@tools/test-page $(ARGS)

test-operators: install  ## metrics, dashboards and alerts on a running `up`, in Debian's Prometheus (root, to install it)
	@tools/test-operators $(ARGS)

docs: install  ## write the generated pages and dashboards
	@$(BIN)/python -m lookalike.settings_docs > docs/settings.md
	@$(BIN)/python -m lookalike.metrics_docs > docs/metrics.md
	@$(BIN)/python deploy/grafana/dashboards.py

lock: install  ## resolve requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --only-binary :all: --all-extras \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml -o requirements.lock

clean:  ## remove what was built; .venv and ./lookalike-data stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help install demo test chaos check test-page test-operators docs lock clean
