# Every target makes the virtual environment itself; a machine needs Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
BUILDER ?= docker
IMAGE ?= mantis/pipeline:dev

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-cluster lint bench compile images clean

help:  ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(STAMP)  ## The virtual environment .venv, from constraints.txt

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: venv  ## Train a tiny model on generated multi-image tasks and open its report
	$(BIN)/mantis run demo --open

test: venv lint  ## Lint, types, and every test that takes seconds
	$(BIN)/python -m pytest -m "not slow" $(TESTS)

test-slow: venv  ## The tests that take minutes
	$(BIN)/python -m pytest -m slow $(TESTS)

test-cluster: venv  ## The tests on the cluster of KUBECONFIG, with the image MANTIS_TEST_IMAGE
	$(BIN)/python -m pytest tests/cluster

lint: venv  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mantis compile --check

bench: venv  ## Peer and ours side by side; NAME=... for one row
	$(BIN)/python -m benchmarks $(NAME)

compile: venv  ## Compile the pipelines to pipelines/compiled
	$(BIN)/mantis compile

images:  ## The container image IMAGE, with BUILDER (docker, podman, buildah ...)
	$(BUILDER) build --tag $(IMAGE) --file docker/Dockerfile --target pipeline .

clean:  ## Remove the virtual environment and caches; results in .mantis stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
