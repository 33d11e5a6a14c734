import os
from collections.abc import Iterator
from uuid import uuid4

import pytest


@pytest.fixture(scope="session")
def image() -> str:
    """The pipeline image, as the cluster pulls it."""
    name = os.environ.get("MANTIS_TEST_IMAGE")
    if not name:
        pytest.skip("MANTIS_TEST_IMAGE is not set: no image for the cluster's pods (`make images`, then push it)")
    return name


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """A namespace of its own, under Pod Security "restricted", on the cluster of KUBECONFIG."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("KUBECONFIG is not set: no cluster to test on")
    from kubernetes import client, config

    config.load_kube_config()
    name = f"mantis-test-{uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core = client.CoreV1Api()
    core.create_namespace({"metadata": {"name": name, "labels": labels}})
    yield name
    core.delete_namespace(name)
