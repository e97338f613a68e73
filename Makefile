# Everything needs only make and Python 3.11 or newer; the rest is fetched on first use.
#
#   make run [ARGS="--engine mock --port 8080"]   the whole stack on this machine (textgen up)
#   make test [TESTS=tests/unit] [ARGS="-k name"] the tests; installs the servers they need if it may
#   make faults [SEED=7] [ARGS="--rows 4,10"]     the whole fault matrix on both kinds of stack (10 min)
#   make faults-quick [SEED=7]                    a part of it (2 min), which `make test` runs too
#   make faults-sabotage                          shows that the matrix notices a safeguard that is off
#   make lint                                     formatting, style, types, direction of imports
#   make bench                                    how many tasks per second the stack carries
#   make lock [ARGS=--upgrade]                    what images are made of, with hashes: requirements.lock
#   make audit                                    its known vulnerabilities, and sbom.json (CycloneDX)
#   make clean                                    what was built; neither tasks nor the model
#
# PYTHON=python3.12 chooses the interpreter of an environment that is not made yet.
# RABBITMQ=4 has tests and faults use RabbitMQ 4, which is fetched for them (needs root and debootstrap).

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS :=
TESTS := tests
SEED :=
export PYTHON
ifeq ($(RABBITMQ),4)
export RABBITMQ_BIN := /var/tmp/textgen-rabbitmq4/bin
endif

.PHONY: help run test faults faults-quick faults-sabotage services lint bench lock audit clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#//p' Makefile

$(VENV)/installed: setup.cfg pyproject.toml textgen/__init__.py
	@sh deploy/venv.sh $(VENV)
	@echo "Installing textgen and what it needs into $(VENV)" >&2
	@$(PIP) install --editable '.[local]'
	@touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml textgen/__init__.py
	@sh deploy/venv.sh $(VENV)
	@echo "Installing textgen and its tools into $(VENV)" >&2
	@$(PIP) install --editable '.[dev,local,openai,anthropic]'
	@touch $(VENV)/installed $@

# Without the model the stack only starts with another engine, and only when that is asked for.
run: $(VENV)/installed
	@{ sh deploy/model_library.sh && $(BIN)/textgen fetch-model >&2; } || \
	{ test -n "$${TEXTGEN_ENGINE:-}$(findstring --engine,$(ARGS))" && echo "Going on without the model" >&2; }
	@exec $(BIN)/textgen up $(ARGS)

services: $(VENV)/installed-dev
	@$(if $(filter 4,$(RABBITMQ)),sh deploy/rabbitmq4.sh >&2)
	@sh deploy/test_services.sh

# Some tests alone, or all of them and the short fault run.
test: services
	@sh deploy/model_library.sh
	@$(BIN)/textgen fetch-model >&2
	$(BIN)/python -m pytest $(TESTS) $(ARGS)
	$(if $(filter tests,$(TESTS)),$(BIN)/python -m tests.faults --quick $(SEED:%=--seed %))

faults: services
	$(BIN)/python -m tests.faults $(SEED:%=--seed %) $(ARGS)

faults-quick: services
	$(BIN)/python -m tests.faults --quick $(SEED:%=--seed %) $(ARGS)

faults-sabotage: services
	$(BIN)/python -m tests.faults.sabotage

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/installed-audit: $(VENV)/installed-dev
	@$(PIP) install --editable '.[audit]'
	@touch $@

# What images are made of, with hashes, for every platform and Python from 3.11 on.
lock: $(VENV)/installed-audit
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command 'make lock' --extra local --extra openai --extra anthropic \
	    --output-file requirements.lock setup.cfg $(ARGS)

# Fails where there is a known vulnerability, and where vulnerability data cannot be reached.
audit: $(VENV)/installed-audit
	$(BIN)/cyclonedx-py requirements --output-reproducible --output-file sbom.json requirements.lock
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

bench: $(VENV)/installed-dev
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
