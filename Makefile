# Every target creates the virtual environment if needed. The machine needs Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
QUICK := $(PYTEST) -m "not slow" --durations=15
# Tests of ranks and servers wait for a third of their time. So there is one worker more than cores, and four at most,
# since each takes up to 3 GB. The whole runs in `pipelines` take longest: they begin first, in the order of the folders.
# The tests of single modules come last. They are short, so that all workers end at the same time.
CORES := $(shell getconf _NPROCESSORS_ONLN)
WORKERS := $(shell test $(CORES) -lt 3 && echo 3 || echo 4)
PARALLEL := OMP_NUM_THREADS=1 $(QUICK) --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
FIRST := tests/integration/pipelines/
INTEGRATION := $(FIRST) $(filter-out $(FIRST),$(sort $(wildcard tests/integration/*/)))
UNIT := tests/unit
BUILDER ?= docker
BUILD_ARGS ?=
TAG ?= dev
MINIO_VERSION := v0.0.0-20260212201848-7aac2a2c5b7c
KUBE_ROUTER_VERSION := v2.1.0
UV_VERSION := 0.13.9
CHECKOV_VERSION := 3.3.30
# Bases of the images with GPUs: make images VARIANT=gpu. Without GPUs, the Dockerfile names the base.
CUDA_BASE := nvidia/cuda:13.0.1-base-ubuntu24.04@sha256:f8ef28f579ea42a44b415d2c5d46f788e6a9b395c6c83f2929416e1fc192c143
CUDA_COMPILER := nvidia/cuda:13.0.1-devel-ubuntu24.04@sha256:7d2f6a8c2071d911524f95061a0db363e24d27aa51ec831fcccf9e76eb72bc92
VARIANT ?= cpu
VARIANT_ARGS := $(if $(filter gpu,$(VARIANT)),--build-arg VARIANT=gpu --build-arg BASE=$(CUDA_BASE) --build-arg COMPILER=$(CUDA_COMPILER))
LOCKED := build train mlflow gpu flash-attn inventory
# The name under which the test cluster has Debian with Python. Its own image has no published digest.
CLUSTER_BASE := python:3.11-slim-bookworm
MANTIS_TOOLS ?= $(HOME)/.cache/mantis-tools
export PATH := $(PATH):$(MANTIS_TOOLS)
CODE_VERSION := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-unit test-integration test-slow test-cluster test-kfp test-gpu mutants \
  lint prose docs compile compile-check golden bench minio kube-router checkov cluster images lock clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

venv: $(STAMP)  ## Create the virtual environment .venv from constraints.txt

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: venv  ## Train a tiny model on generated multi-image tasks and open its report
	$(BIN)/mantis run demo --open

test: venv  ## Run everything that a change must pass
	$(MAKE) --jobs=2 --output-sync=target lint compile-check docs
	$(PARALLEL) $(INTEGRATION) $(UNIT)

test-unit: venv  ## Run the tests of single modules, seconds each
	$(PARALLEL) $(UNIT)

test-integration: venv  ## Run the tests that start steps, ranks and pipelines on this machine
	$(PARALLEL) $(INTEGRATION)

test-slow: venv  ## Run the tests that take minutes; also tests/cluster if KUBECONFIG and MANTIS_TEST_IMAGE are set
	$(PYTEST) -m slow tests
	$(BIN)/python -m tests.mutants

test-cluster: venv  ## Run the tests on the cluster of KUBECONFIG, with the image MANTIS_TEST_IMAGE
	MANTIS_TEST_IMAGE=$${MANTIS_TEST_IMAGE:-mantis/train:$(CODE_VERSION)} $(QUICK) tests/cluster

test-kfp: venv  ## Run the tests on Kubeflow Pipelines at MANTIS_KFP_HOST, with the image MANTIS_TEST_IMAGE
	$(PYTEST) tests/kfp

test-gpu: venv  ## Run the tests that need a CUDA device
	$(PYTEST) tests/gpu

mutants: venv  ## Report changes of the code that no test notices, for PART or for all parts of tests/mutants/parts.toml
	$(BIN)/python -m tests.mutants $(PART) $(if $(SAMPLE),--sample $(SAMPLE))

lint: venv prose  ## Run ruff, mypy --strict, the import contracts, and the check of the English
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

prose: venv  ## Check sentence length and words of docs, docstrings, help texts and errors
	$(BIN)/python docs/prose_check.py

docs: venv  ## Check links between pages, and the generated reference pages
	$(BIN)/python docs/link_check.py
	$(BIN)/python -m pipelines.cli.reference_pages --check

compile-check: venv  ## Fail if the compiled pipelines or the TrainJobs differ from the code
	$(BIN)/mantis pipeline compile --check
	$(BIN)/mantis job --check

bench: venv  ## Measure this project and its peers side by side; NAME=... for one row
	$(BIN)/python -m benchmarks $(NAME)

compile: venv  ## Write pipelines/compiled, manifests/jobs, the reference pages and the birth defaults
	$(BIN)/mantis pipeline compile
	$(BIN)/mantis job --shipped
	$(BIN)/python -m pipelines.cli.reference_pages
	$(BIN)/python -m tests.golden.write_birth_defaults

golden: venv  ## Write the golden fingerprints again; the commit has to say why they change
	$(BIN)/python -m tests.golden.write_fingerprints

minio:  ## Build MinIO once for the tests of the store, because upstream no longer publishes binaries
	command -v minio || CGO_ENABLED=0 GOBIN=$(MANTIS_TOOLS) \
	  go install -ldflags "-s -w" github.com/minio/minio@$(MINIO_VERSION)

kube-router:  ## Build kube-router once, with which tests/cluster enforces NetworkPolicies on a test cluster of one node
	command -v kube-router || CGO_ENABLED=0 GOBIN=$(MANTIS_TOOLS) \
	  go install -ldflags "-s -w" github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@$(KUBE_ROUTER_VERSION)

images:  ## Build mantis/{train,mlflow}:TAG with BUILDER (docker, podman, buildah), VARIANT=gpu or cpu; SBOMs go to build/TAG
	for target in train mlflow; do \
	  build="$(BUILDER) build --file docker/Dockerfile --build-arg TARGET=$$target \
	    --build-arg CODE_VERSION=$(CODE_VERSION) $(VARIANT_ARGS) $(BUILD_ARGS)"; \
	  $$build --tag mantis/$$target:$(TAG) . || exit 1; \
	  $$build --target inventory --output type=local,dest=build/$(TAG)/$$target . || exit 1; \
	done

lock:  ## Write docker/requirements/*.txt, the packages of the images with their hashes, from constraints.txt
	test -x $(MANTIS_TOOLS)/uv/bin/uv || { $(PYTHON) -m venv $(MANTIS_TOOLS)/uv && \
	  $(MANTIS_TOOLS)/uv/bin/pip install --quiet uv==$(UV_VERSION); }
	cd docker/requirements && for file in $(LOCKED); do \
	  case $$file in train) from=../../pyproject.toml;; *) from=$$file.in;; esac; \
	  case $$file in gpu|flash-attn) more=--no-deps;; *) more=;; esac; \
	  $(MANTIS_TOOLS)/uv/bin/uv pip compile $$from --constraints ../../constraints.txt --generate-hashes --universal \
	    --python-version 3.11 --no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet $$more \
	    --output-file $$file.txt > /dev/null || exit 1; \
	done

checkov: venv  ## Compare checkov's findings in every overlay with manifests/checkov.toml
	test -x $(MANTIS_TOOLS)/checkov/bin/checkov || { $(PYTHON) -m venv $(MANTIS_TOOLS)/checkov && \
	  $(MANTIS_TOOLS)/checkov/bin/pip install --quiet checkov==$(CHECKOV_VERSION); }
	PATH="$(MANTIS_TOOLS)/checkov/bin:$$PATH" $(PYTEST) tests/integration/repository/test_checkov.py

cluster:  ## Start the test cluster with the command MANTIS_TEST_CLUSTER, and push the images to its registry
	test -n "$(MANTIS_TEST_CLUSTER)"
	$(MANTIS_TEST_CLUSTER) up || { $(MANTIS_TEST_CLUSTER) down; $(MANTIS_TEST_CLUSTER) up; }  # Trainer's certificates may be late at the first start
	sleep 3; $(MANTIS_TEST_CLUSTER) status | grep -q "kube-proxy *running" || $(MANTIS_TEST_CLUSTER) up  # kube-proxy may exit because of old settings
	for image in mlflow:dev train:dev train:$(CODE_VERSION); do \
	  $(MANTIS_TEST_CLUSTER) build mantis/$$image . --file docker/Dockerfile --build-arg TARGET=$${image%%:*} \
	    --build-arg CODE_VERSION=$(CODE_VERSION) --build-arg BASE=$(CLUSTER_BASE) || exit 1; \
	done  # a separate tag for the tests, because a node that has train:dev does not pull it again

clean:  ## Remove the virtual environment and caches, but not the results in .mantis
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
