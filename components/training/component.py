"""The KFP component of the step `train`."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def train(run: str, store_url: str, mixture: dsl.Input[dsl.Dataset], checkpoint: dsl.Output[dsl.Model]) -> None:
    """Train on the mixture, starting from the last committed checkpoint of the same training if one exists."""
    from components.training import step
    from mantis.artifacts.manifest import load_manifest
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        trained = step.train(opened, load_manifest(mixture.path))
        settings = opened.recipe.training
        hand_on(opened, trained, checkpoint, learning_rate=f"{settings.learning_rate:g}", epochs=str(settings.epochs))
