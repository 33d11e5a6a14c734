# Every target makes the virtual environment itself; a machine needs Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
QUICK := $(PYTEST) -m "not slow" --durations=15
BUILDER ?= docker
BUILD_ARGS ?=
TAG ?= dev
MINIO_VERSION := v0.0.0-20260212201848-7aac2a2c5b7c
MANTIS_TOOLS ?= $(HOME)/.cache/mantis-tools
export PATH := $(PATH):$(MANTIS_TOOLS)
CODE_VERSION := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-unit test-integration test-slow test-cluster test-kfp test-gpu \
  lint prose docs compile compile-check golden bench minio cluster images clean

help:  ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

venv: $(STAMP)  ## The virtual environment .venv, from constraints.txt

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: venv  ## Train a tiny model on generated multi-image tasks and open its report
	$(BIN)/mantis run demo --open

test: lint compile-check docs test-unit test-integration  ## Everything that a change must pass

test-unit: venv  ## Tests of single modules, seconds each
	$(QUICK) tests/unit

test-integration: venv  ## Tests that run steps, ranks and pipelines on this machine
	$(QUICK) tests/integration

test-slow: venv  ## Tests that take minutes; with KUBECONFIG and MANTIS_TEST_IMAGE, those of tests/cluster too
	$(PYTEST) -m slow tests

test-cluster: venv  ## Tests on the cluster of KUBECONFIG, with the image MANTIS_TEST_IMAGE
	MANTIS_TEST_IMAGE=$${MANTIS_TEST_IMAGE:-mantis/train:$(CODE_VERSION)} $(QUICK) tests/cluster

test-kfp: venv  ## Tests on the Kubeflow Pipelines at MANTIS_KFP_HOST, with the image MANTIS_TEST_IMAGE
	$(PYTEST) tests/kfp

test-gpu: venv  ## Tests that need a CUDA device
	$(PYTEST) tests/gpu

lint: venv prose  ## ruff, mypy --strict, and the project's English
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

prose: venv  ## Sentence length and words of docs, docstrings, help texts and errors
	$(BIN)/python docs/prose_check.py

docs: venv  ## Links between the pages, and the generated reference pages
	$(BIN)/python docs/link_check.py
	$(BIN)/python -m pipelines.cli.reference_pages --check

compile-check: venv  ## Fail if the compiled pipelines or the TrainJobs differ from the code
	$(BIN)/mantis pipeline compile --check
	$(BIN)/mantis job --check

bench: venv  ## Peer and ours side by side; NAME=... for one row
	$(BIN)/python -m benchmarks $(NAME)

compile: venv  ## Compile the pipelines to pipelines/compiled, TrainJobs, reference pages and birth defaults
	$(BIN)/mantis pipeline compile
	$(BIN)/mantis job --shipped
	$(BIN)/python -m pipelines.cli.reference_pages
	$(BIN)/python -m tests.golden.write_birth_defaults

golden: venv  ## Write the golden fingerprints again; the commit has to say why they change
	$(BIN)/python -m tests.golden.write_fingerprints

minio:  ## Build MinIO for the tests of the store, once; upstream publishes no binaries any more
	command -v minio || CGO_ENABLED=0 GOBIN=$(MANTIS_TOOLS) \
	  go install -ldflags "-s -w" github.com/minio/minio@$(MINIO_VERSION)

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
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
