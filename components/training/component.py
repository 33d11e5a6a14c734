"""The KFP component of the step `train`."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def train(run: str, store_url: str, mixture: dsl.Input[dsl.Dataset], checkpoint: dsl.Output[dsl.Model]) -> None:
    """Train on the mixture, starting from the last committed checkpoint of the same training if one exists."""
    from components.training import step
    from mantis.artifacts.manifest import load_manifest, save_manifest
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        save_manifest(step.train(open_run(run, store_url), load_manifest(mixture.path)), checkpoint.path)
