# Every target brings up what it needs by itself (scripts/setup), on a fresh machine too.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
RUN := scripts/run
CODE := device_agent cloud_sim tests $(wildcard benchmarks)
# The fast ones first, so that a simple mistake is told in seconds.
TESTS := $(wildcard tests/unit tests/property tests/contract tests/e2e tests/faults)
# Most of the time is waiting, for engines and brokers. A file's tests stay together: they share what was set up for them.
SIDE_BY_SIDE := -n 3 --dist loadfile

.PHONY: help setup python demo test faults cluster lint format bench lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | while IFS="$$(printf '\t')" read -r target text; do printf '  make %-8s %s\n' "$$target" "$$text"; done

setup: ## what a fresh machine needs: Python packages in .venv, a container engine, images
	@scripts/setup

python:
	@scripts/setup python

demo: setup ## the main job for real: a broker, an agent, a target, running containers, the agent replaced
	@$(RUN) scripts/demo

test: setup ## the whole test suite; ARGS="-k name" goes to pytest, "-n 0" runs them one by one
	@scripts/tools strace faketime mkfs.ext4:e2fsprogs
	@$(RUN) pytest $(SIDE_BY_SIDE) $(TESTS) $(ARGS)

faults: setup ## break a device in every way there is, and see it come right; ARGS="--list" names the ways
	@scripts/tools strace faketime mkfs.ext4:e2fsprogs
	@$(RUN) python -m tests.faults $(ARGS)

cluster: setup ## a simulated fleet on a RabbitMQ cluster that loses a node and gets it back; ARGS="--devices 100"
	@$(RUN) python -m tests.faults.cluster $(ARGS)

lint: python ## ruff, mypy and the import contracts
	@$(RUN) ruff check $(CODE)
	@$(RUN) ruff format --check $(CODE)
	@$(RUN) mypy
	@$(RUN) lint-imports --no-logo

format: python ## format the code, and fix what ruff can fix
	@$(RUN) ruff format $(CODE)
	@$(RUN) ruff check --fix $(CODE)

bench: setup ## the benchmarks, with the peers beside them
	@scripts/compose-v2
	@$(RUN) python -m benchmarks $(ARGS)

# The lock files carry hashes but no index: pip takes the packages from wherever it is set up to.
LOCK := $(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"
lock: ## anew, the newest versions that pyproject.toml allows: requirements*.lock
	@scripts/setup python
	@$(LOCK) --upgrade pyproject.toml --output-file requirements.lock
	@$(LOCK) --upgrade --extra dev --constraints requirements.lock pyproject.toml --output-file requirements-dev.lock
	@$(LOCK) --upgrade --group build --constraints requirements-dev.lock --output-file requirements-build.lock
	@scripts/setup python

clean: ## remove what the project made here: its containers and images, .venv, .dev; stop the engine it started (data volumes stay)
	@scripts/clean
