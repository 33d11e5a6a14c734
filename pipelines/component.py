"""KFP components of the run itself: its first and its last task, and the model that a run is only to evaluate."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight(
    run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str, eval_model: str, evaluates: bool
) -> str:
    """Check recipe, store, source and, of a run that uses them, launcher, benchmarks and model; the run's id."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import preflight as first
    from pipelines.execution.resolve import name_of

    with component_main():
        name = name_of(run_recipe, run_overrides, run_name, eval_model, store_url)
        return first.preflight(run_recipe, run_overrides, name, store_url, model=eval_model, evaluates=evaluates).id


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight_arms(run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str) -> str:
    """As preflight, for an ablation: the run that compares its arms."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import ablation_runs as ablation

    with component_main():
        return ablation.preflight_arms(run_recipe, run_overrides, run_name, store_url).id


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def arms(run: str, store_url: str, datasets: dsl.Input[list[dsl.Dataset]]) -> list[dict[str, str]]:
    """The runs that are compared; not before all of their datasets are there."""
    from mantis.runs.arms import arms_of
    from mantis.runs.step_runner import component_main, open_run, recorded

    with component_main():
        opened = open_run(run, store_url)
        with recorded(opened, "arms"):
            return [{"run": arm} for arm in arms_of(opened.store, run)]


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def finish_arms(run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str) -> None:
    """As finish, for every arm of an ablation and for the run that compares them."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import ablation_runs as ablation

    with component_main():
        ablation.finish_arms(run_recipe, run_overrides, run_name, store_url)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def existing_model(run: str, store_url: str, eval_model: str, model: dsl.Output[dsl.Model]) -> None:
    """The model of the store that `eval_model` names."""
    from mantis.artifacts.manifest import save_manifest
    from mantis.runs.step_runner import component_main, open_run, record_existing
    from pipelines.execution.preflight import find_model

    with component_main():
        opened = open_run(run, store_url)
        save_manifest(record_existing(opened, "model", lambda: find_model(opened.store, eval_model)), model.path)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def finish(
    run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str, last_step: str, eval_model: str
) -> None:
    """Whatever happened: close the MLflow run with the right status and write the run's summary."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import finalize as last

    with component_main():
        last.finish(run_recipe, run_overrides, run_name, store_url, last_step=last_step, model=eval_model)
