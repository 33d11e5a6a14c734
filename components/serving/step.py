"""The step `deploy`: the objects that serve a run's model on Kubernetes, as an artifact. Nothing is started."""

import os
from collections.abc import Mapping
from typing import Any

from components.serving.deployment.deployment_request import DeploymentRequest
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, Number
from mantis.runs.step_runner import Run, StepSpec, run_step

REVISION = 2  # raise it when the same model and the same request would give other objects
OBJECTS = "deployment.yaml"


def request_of(run: Run, resources: Mapping[str, Any]) -> DeploymentRequest:
    """What the recipe of a run asks for. Its image is that of the ranks, else that of this step."""
    cluster = run.recipe.cluster
    return DeploymentRequest(
        image=cluster.image or os.environ.get("MANTIS_IMAGE", ""), namespace=cluster.namespace, resources=resources
    )


def deploy(run: Run, model: Manifest, resources: Mapping[str, Any]) -> Manifest:
    """Write deployment.yaml, for `kubectl apply -f`. `resources`: the entry `serve` of a platform file.

    Raises:
        ConfigError: the run has no image, or pods cannot reach its store.
    """
    asked = request_of(run, resources)
    spec = StepSpec(
        step="deploy",
        kind=ArtifactKind.DEPLOYMENT,
        revision=REVISION,
        config={
            "image": asked.image,
            "namespace": asked.namespace,
            "resources": dict(resources),
            "store": run.store.url,
        },
        inputs={"model": model},
    )

    def compute(prefix: str) -> dict[str, Number]:
        from components.serving.deployment.deployment_spec import rendered

        run.store.put(f"{prefix}/{OBJECTS}", rendered(run.store, model, asked).encode())
        return {"image": asked.image, "namespace": asked.namespace}

    return run_step(run, spec, compute)
