# Every target makes the virtual environment itself; a machine needs Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
BUILDER ?= docker
BUILD_ARGS ?=
TAG ?= dev
CODE_VERSION := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-cluster cluster lint bench compile images clean

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
	$(BIN)/python -m pytest -m "not slow" --durations=15 $(TESTS)

test-slow: venv  ## The tests that take minutes; with KUBECONFIG and MANTIS_TEST_IMAGE, those of tests/cluster too
	$(BIN)/python -m pytest -m slow $(TESTS)

test-cluster: venv  ## The tests on the cluster of KUBECONFIG, with the image MANTIS_TEST_IMAGE
	MANTIS_TEST_IMAGE=$${MANTIS_TEST_IMAGE:-mantis/train:$(CODE_VERSION)} $(BIN)/python -m pytest -m "not slow" --durations=15 tests/cluster

lint: venv  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mantis pipeline compile --check
	$(BIN)/mantis job --check
	$(BIN)/python -m pipelines.cli.reference_pages --check

bench: venv  ## Peer and ours side by side; NAME=... for one row
	$(BIN)/python -m benchmarks $(NAME)

compile: venv  ## Compile the pipelines to pipelines/compiled, the recipes to manifests/jobs, and the reference pages
	$(BIN)/mantis pipeline compile
	$(BIN)/mantis job --shipped
	$(BIN)/python -m pipelines.cli.reference_pages

images:  ## The container images mantis/{pipeline,train,mlflow}:TAG, with BUILDER (docker, podman, buildah); BUILD_ARGS for GPUs
	for target in pipeline train mlflow; do \
	  $(BUILDER) build --tag mantis/$$target:$(TAG) --file docker/Dockerfile --build-arg TARGET=$$target \
	    --build-arg CODE_VERSION=$(CODE_VERSION) $(BUILD_ARGS) . || exit 1; \
	done

cluster:  ## The test cluster (MANTIS_TEST_CLUSTER is its command) and the images in its registry
	test -n "$(MANTIS_TEST_CLUSTER)"
	$(MANTIS_TEST_CLUSTER) up || { $(MANTIS_TEST_CLUSTER) down; $(MANTIS_TEST_CLUSTER) up; }  # Trainer's certificates can race
	sleep 3; $(MANTIS_TEST_CLUSTER) status | grep -q "kube-proxy *running" || $(MANTIS_TEST_CLUSTER) up  # it ends with old settings
	for image in mlflow:dev train:dev train:$(CODE_VERSION); do \
	  $(MANTIS_TEST_CLUSTER) build mantis/$$image . --file docker/Dockerfile --build-arg TARGET=$${image%%:*} \
	    --build-arg CODE_VERSION=$(CODE_VERSION) || exit 1; \
	done  # a tag of its own for the tests: a node that has pulled train:dev once does not pull it again

clean:  ## Remove the virtual environment and caches; results in .mantis stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
