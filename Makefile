PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
.DELETE_ON_ERROR:
.PHONY: help run test test-all prove fuzz torture bench house check audit format requirements clean

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

run: .venv/local.installed ## Run the service, with a PostgreSQL of its own where DB_HOST is not set
	@exec $(VENV_PYTHON) run.py

PYTEST = $(VENV_PYTHON) -m pytest --numprocesses 2 --dist worksteal
test: .venv/test.installed ## Run the tests that take two minutes; ARGS="-k log" chooses some
	@$(PYTEST) -m "not long and not effort" $(ARGS)

test-all: .venv/test.installed ## Run all tests, also those marked long; ARGS=tests/process chooses some, ARGS=--cov measures coverage
	@$(PYTEST) -m "not effort" $(ARGS)

prove: .venv/test.installed ## Run what needs load or hours, one part after the other; ARGS="torture soak" chooses parts, ARGS=--plan only says what there is
	@$(VENV_PYTHON) -m tests.prove $(ARGS)

fuzz: .venv/test.installed ## Ask the service 10,000 things that its document allows or forbids; EXAMPLES=500 chooses how many
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),10000) $(VENV_PYTHON) -m pytest --timeout 0 -m long tests/test_schemathesis.py $(ARGS)

torture: .venv/test.installed ## Kill, freeze and restart it under load and compare what was promised with what is there; ARGS="--seconds 600 --seed 7", ARGS="--soak --seconds 3600" goes on for long, ARGS=--hostile sends 10,000 hostile requests, ARGS=--siege measures what one hostile client costs others
	@$(VENV_PYTHON) -m torture $(ARGS)

bench: .venv/bench.installed $(if $(findstring --kinto,$(ARGS)),.venv/bench-kinto.installed) ## Measure it beside others and write docs/performance.md; ARGS=--quick is quick and only prints, ARGS=--help tells more
	@$(VENV_PYTHON) -m bench $(ARGS)

house: ## Draw docs/house.svg, the picture of the rooms, from the imports
	@$(PYTHON) -m docs.picture

check: .venv/dev.installed ## Check format, lint, types, Dockerfile and docker-compose.yml
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m mypy
	.venv/bin/hadolint Dockerfile
	$(VENV_PYTHON) -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

audit: .venv/dev.installed ## Ask PyPI whether what is pinned has known vulnerabilities
	@$(VENV_PYTHON) -m pip_audit --strict --disable-pip --require-hashes -r requirements/dev.txt -r requirements/bench-kinto.txt

format: .venv/dev.installed ## Format the code, mending what ruff can mend
	$(VENV_PYTHON) -m ruff check --fix --exit-zero .
	$(VENV_PYTHON) -m ruff format .

COMPILE = $(VENV_PYTHON) -m uv pip compile --quiet --universal --no-strip-extras --generate-hashes --python-version 3.11 --custom-compile-command "make requirements" $(ARGS)
requirements: .venv/dev.installed ## Write requirements.txt and requirements/*.txt from requirements/*.in; ARGS=--upgrade takes the newest versions
	$(COMPILE) requirements/dev.in -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt requirements/test.in -o requirements/test.txt
	$(COMPILE) -c requirements/dev.txt requirements/bench.in -o requirements/bench.txt
	$(COMPILE) -c requirements/dev.txt requirements/bench-kinto.in -o requirements/bench-kinto.txt
	$(COMPILE) -c requirements/dev.txt requirements/local.in -o requirements/local.txt
	$(COMPILE) -c requirements/dev.txt requirements/service.in -o requirements.txt

clean: ## Remove what make made, but not .data, which has your tasks
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/%.installed: requirements/%.txt $(VENV_PYTHON)
	@echo "Installing $< into .venv (only when it changed) ..."
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV_PYTHON):
	@command -v "$(PYTHON)" >/dev/null || { echo 'Python 3.11 or newer is needed, and there is no "$(PYTHON)"; name yours: make PYTHON=...' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed, and "$(PYTHON)" is older; name another: make PYTHON=...' >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear .venv
