"""The KFP component of the step `convert`."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def convert(run: str, store_url: str, checkpoint: dsl.Input[dsl.Model], model: dsl.Output[dsl.Model]) -> bool:
    """Convert ZeRO shards to a Hugging Face model folder, and commit it after the proof that both models are equal.

    Return whether the run's recipe deploys its model.
    """
    from components.conversion import step
    from mantis.artifacts.manifest import load_manifest
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        hand_on(opened, step.convert(opened, load_manifest(checkpoint.path)), model)
        return opened.recipe.cluster.deploy
