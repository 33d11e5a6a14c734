"""KFP components of data preparation."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def subsets(run: str, store_url: str) -> list[dict[str, str]]:
    """List the subsets of the run's mixture. Each entry holds the run and the name of one subset."""
    from components.data.step import resolve_subsets
    from mantis.runs.step_runner import component_main, open_run, recorded

    with component_main():
        opened = open_run(run, store_url)
        with recorded(opened, "subsets"):
            return [{"run": run, "subset": subset} for subset in resolve_subsets(opened)]


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def arm_subsets(run: str, store_url: str) -> list[dict[str, str]]:
    """List the datasets that the arms of a sweep need, each once. Each entry holds an arm and the name of a subset."""
    from components.data.step import datasets_of_arms
    from mantis.runs.step_runner import component_main, open_run, recorded

    with component_main():
        opened = open_run(run, store_url)
        with recorded(opened, "subsets"):
            return [{"run": arm, "subset": subset} for arm, subset in datasets_of_arms(opened)]


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def prepare(run: str, store_url: str, subset: str, dataset: dsl.Output[dsl.Dataset]) -> None:
    """Prepare one subset: check every row, keep it in the dataset or write the reason to the ledger."""
    from components.data import step
    from mantis.artifacts.manifest import save_manifest
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        save_manifest(step.prepare(open_run(run, store_url), subset), dataset.path)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def assemble(
    run: str, store_url: str, datasets: dsl.Input[list[dsl.Dataset]], mixture: dsl.Output[dsl.Dataset]
) -> None:
    """Assemble the mixture: choose the rows of an epoch and count the tokens of each sample."""
    from components.data import step
    from mantis.artifacts.manifest import load_manifest, save_manifest
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        prepared = [load_manifest(dataset.path) for dataset in datasets]
        save_manifest(step.assemble(open_run(run, store_url), prepared), mixture.path)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def assemble_prepared(run: str, store_url: str, mixture: dsl.Output[dsl.Dataset]) -> None:
    """Assemble the mixture from datasets in the store. A subset that is not prepared yet is prepared first."""
    from components.data import step
    from mantis.artifacts.manifest import save_manifest
    from mantis.runs.step_runner import component_main, open_run

    with component_main():
        opened = open_run(run, store_url)
        prepared = [step.prepare(opened, subset) for subset in step.resolve_subsets(opened)]
        save_manifest(step.assemble(opened, prepared), mixture.path)
