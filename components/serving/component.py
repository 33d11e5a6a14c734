"""The KFP component of the step `deploy`."""

from typing import Any

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def deploy(
    run: str,
    store_url: str,
    model: dsl.Input[dsl.Model],
    resources: dict[str, Any],
    deployment: dsl.Output[dsl.Artifact],
) -> None:
    """Write the objects of a server of the model, for `kubectl apply`. Nothing is started."""
    from components.serving import step
    from mantis.artifacts.manifest import load_manifest
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        hand_on(opened, step.deploy(opened, load_manifest(model.path), resources), deployment)
