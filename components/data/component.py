"""KFP components of data preparation."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def prepare(run: str, store_url: str, subset: str, dataset: dsl.Output[dsl.Dataset]) -> None:
    """Prepare one subset: check every row, keep it in the dataset or write the reason to the ledger."""
    from components.data import step
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        hand_on(opened, step.prepare(opened, subset), dataset, part=subset)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def assemble(
    run: str, store_url: str, datasets: dsl.Input[list[dsl.Dataset]], mixture: dsl.Output[dsl.Dataset]
) -> None:
    """Assemble the mixture: choose the rows of an epoch and count the tokens of each sample."""
    from components.data import step
    from mantis.artifacts.manifest import load_manifest
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        prepared = [load_manifest(dataset.path) for dataset in datasets]
        hand_on(opened, step.assemble(opened, prepared), mixture)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def prepare_mixture(run: str, store_url: str, mixture: dsl.Output[dsl.Dataset]) -> None:
    """Assemble the mixture from datasets in the store. A subset that is not prepared yet is prepared first."""
    from components.data import step
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        hand_on(opened, step.assemble(opened, step.prepare_all(opened)), mixture)
