"""The KFP component of the step `convert`."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def convert(run: str, store_url: str, checkpoint: dsl.Input[dsl.Model], model: dsl.Output[dsl.Model]) -> None:
    """Convert ZeRO shards to a Hugging Face model folder, and commit it after the proof that both models are equal."""
    from components.conversion import step
    from mantis.artifacts.manifest import load_manifest, save_manifest
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        save_manifest(step.convert(open_run(run, store_url), load_manifest(checkpoint.path)), model.path)
