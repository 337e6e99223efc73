# Everything here works on a fresh machine with Python 3.11+ and pip: each target makes the environment that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := common server client experiments cli
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

.PHONY: help venv demo test test-fast lint fmt types docs proto proto-check wheel-test atlas experiments compose-test fuzz chaos chaos-net clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

venv: $(VENV)/.installed ## The environment in .venv, and nothing else

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("collabedit needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# mypy and import-linter read a tree whose folders have the import name's shape.
$(VENV)/tree: Makefile
	rm -rf $@ && mkdir -p $@/collabedit
	for each in $(PACKAGES); do ln -s "$(CURDIR)/$$each" $@/collabedit/$$each; done
	ln -s "$(CURDIR)/proto/collabedit/v1" $@/collabedit/v1

demo: venv ## One server and three clients, really, on the bundled model; a table at the end
	$(BIN)/collab demo

test: venv lint types proto-check ## Lint, types and every test, on the source tree and on the built wheel
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not compose"
	$(MAKE) wheel-test

test-fast: venv ## The tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m 'not slow and not compose'

lint: venv $(VENV)/tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=$(VENV)/tree $(BIN)/lint-imports

types: venv $(VENV)/tree
	MYPYPATH=$(VENV)/tree $(BIN)/mypy $(foreach each,$(PACKAGES),-p collabedit.$(each))

fmt: venv ## Formats and fixes what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: venv ## Writes the reference pages that are drawn from the code
	$(BIN)/python -m collabedit.cli.reference docs/reference

proto: venv ## Regenerates the protocol's Python from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto --grpc_python_out=proto \
	  proto/collabedit/v1/*.proto

proto-check: venv
	rm -rf build/proto && mkdir -p build/proto
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=build/proto --pyi_out=build/proto \
	  --grpc_python_out=build/proto proto/collabedit/v1/*.proto
	for each in build/proto/collabedit/v1/*; do cmp "$$each" "proto/collabedit/v1/$$(basename "$$each")" \
	  || { echo "generated code differs from the .proto: run make proto"; exit 1; }; done

# The wheel in an environment of its own, which borrows only the dependencies of the first.
wheel-test: venv
	rm -rf build/wheel .venv-wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel . > build/wheel/log.txt 2>&1 || { cat build/wheel/log.txt; exit 1; }
	$(PYTHON) -m venv .venv-wheel
	echo "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  > "$$(.venv-wheel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	.venv-wheel/bin/pip install --quiet --disable-pip-version-check --no-deps --ignore-installed build/wheel/*.whl
	.venv-wheel/bin/python -m pytest --version > /dev/null
	cd tests && COLLAB_TEST_WHEEL=1 ../.venv-wheel/bin/python -c 'import sys, pytest; sys.exit(pytest.main(["-m", "wheel", "-q"]))'

fuzz: venv ## A million fuzzed uploads and messages; report in runs/fuzz (about 6 minutes on 2 cores)
	-$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python tests/fuzz/run.py --cases $(or $(CASES),1000000) --seed $(or $(SEED),1) --report runs/fuzz

chaos: venv ## Kills servers and clients at every durable transition; report in runs/chaos (under an hour on 2 cores)
	$(BIN)/python tests/chaos/run.py --seed $(or $(SEED),1) $(ONLY:%=--only %) $(SIDE:%=--side %) --report runs/chaos

chaos-net: venv ## Rounds over a bad network between namespaces; needs root; report in runs/chaos-net
	$(BIN)/python tests/net/run.py --report runs/chaos-net

atlas: venv ## Trains the bundled model from nothing (under 90 minutes on 2 cores)
	$(BIN)/python -m collabedit.experiments.atlas.build --out common/models/atlas

experiments: venv ## Every study on the bundled model; writes docs/results.md (FRESH=1: anew; else goes on)
	OMP_NUM_THREADS=1 $(BIN)/python -m collabedit.cli.results $(if $(FRESH),--fresh)

compose-test: venv ## Builds and runs the containers on a Docker engine; says so and skips where there is none
	$(BIN)/pytest -m compose tests/deploy

clean: ## Removes what the targets made
	rm -rf $(VENV) .venv-wheel build dist *.egg-info
