"""The KFP components of the run itself: first task, last task, arms of ablation and sweep, and an existing model."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight(
    run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str, eval_model: str, evaluates: bool
) -> str:
    """Check recipe, store and source, and the launcher, benchmarks and model of a run that uses them; return its id."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import preflight as first
    from pipelines.execution.resolve import name_of
    from pipelines.execution.run_titles import announce

    with component_main():
        name = name_of(run_recipe, run_overrides, run_name, eval_model, store_url)
        run = first.preflight(run_recipe, run_overrides, name, store_url, model=eval_model, evaluates=evaluates)
        return announce(run).id


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight_arms(run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str) -> str:
    """Check an ablation like `preflight`, and return the id of the run that compares the arms."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import ablation_runs as ablation
    from pipelines.execution.run_titles import announce

    with component_main():
        return announce(ablation.preflight_arms(run_recipe, run_overrides, run_name, store_url)).id


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def arms(run: str, store_url: str, datasets: dsl.Input[list[dsl.Dataset]]) -> list[dict[str, str]]:
    """List the runs of the arms, after all datasets are prepared."""
    from mantis.runs.arms import arms_of
    from mantis.runs.step_runner import component_main, open_run, recorded

    with component_main():
        opened = open_run(run, store_url)
        with recorded(opened, "arms"):
            return [{"run": arm} for arm in arms_of(opened.store, run)]


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def finish_arms(run_recipe: str, run_overrides: dict[str, str], run_name: str, store_url: str) -> None:
    """Close every arm of an ablation, and the run that compares them, like `finish`."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import ablation_runs as ablation

    with component_main():
        ablation.finish_arms(run_recipe, run_overrides, run_name, store_url)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight_sweep(
    run_recipe: str, run_overrides: dict[str, str], run_over: dict[str, list[str]], run_name: str, store_url: str
) -> str:
    """Check every arm of a sweep like `preflight`, and return the id of the run that compares the arms."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution.sweeps.sweep_runs import plan_sweep, prepare_sweep

    with component_main():
        return prepare_sweep(plan_sweep(run_recipe, run_overrides, run_over, run_name, store_url)).id


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def finish_sweep(
    run_recipe: str, run_overrides: dict[str, str], run_over: dict[str, list[str]], run_name: str, store_url: str
) -> None:
    """Close every arm of a sweep, and the run that compares them, like `finish`."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution.sweeps.sweep_end import close_sweep

    with component_main():
        close_sweep(run_recipe, run_overrides, run_over, run_name, store_url)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def existing_model(run: str, store_url: str, eval_model: str, model: dsl.Output[dsl.Model]) -> None:
    """Return the model of the store that `eval_model` names."""
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
    """Close the MLflow run with the right status and write the run's summary, after success and after failure."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import finalize as last

    with component_main():
        last.finish(run_recipe, run_overrides, run_name, store_url, last_step=last_step, model=eval_model)
