"""The KFP components of the run itself: first task, last task, arms and trials, and an existing model."""

from kfp import dsl

from mantis.kfp_image import PIPELINE_IMAGE


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight(
    recipe: str,
    overrides: str,
    mantis_run: str,
    store_url: str,
    run: dsl.OutputPath(str),  # type: ignore[valid-type]
    plan: dsl.Output[dsl.Markdown],
    learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    nodes: str = "",
    benchmarks: str = "",
    eval_model: str = "",
    evaluates: bool = True,
) -> list[dict[str, str]]:
    """Check recipe, store and source, and the launcher, benchmarks and model of a run that uses them.

    It returns what the loop of the pipeline runs over: benchmarks of a run that evaluates, else subsets. `run` is the
    id of the run, and `plan` describes it to people.
    """
    from mantis.runs.step_runner import component_main
    from pipelines.execution import preflight as first
    from pipelines.execution.form.form_fields import overrides_of
    from pipelines.execution.form.run_plan import loop_over, write_plan
    from pipelines.execution.resolve import name_of
    from pipelines.execution.run_titles import announce

    with component_main():
        fields = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size, "nodes": nodes}
        changes = overrides_of(overrides, {**fields, "benchmarks": benchmarks})
        name = name_of(recipe, changes, mantis_run, eval_model, store_url)
        checked = announce(first.preflight(recipe, changes, name, store_url, model=eval_model, evaluates=evaluates))
        return write_plan(checked, loop_over(checked, evaluates=evaluates), str(run), plan.path)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight_arms(
    recipe: str,
    overrides: str,
    mantis_run: str,
    store_url: str,
    run: dsl.OutputPath(str),  # type: ignore[valid-type]
    plan: dsl.Output[dsl.Markdown],
    learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    nodes: str = "",
    benchmarks: str = "",
) -> list[dict[str, str]]:
    """Check an ablation like `preflight`. `run` is the id of the run that compares the arms; the loop needs subsets."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import ablation_runs as ablation
    from pipelines.execution.form.form_fields import overrides_of
    from pipelines.execution.form.run_plan import loop_over, write_plan
    from pipelines.execution.run_titles import announce

    with component_main():
        fields = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size, "nodes": nodes}
        changes = overrides_of(overrides, {**fields, "benchmarks": benchmarks})
        checked = announce(ablation.preflight_arms(recipe, changes, mantis_run, store_url))
        return write_plan(checked, loop_over(checked, evaluates=False), str(run), plan.path)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def preflight_sweep(
    recipe: str,
    overrides: str,
    over: str,
    trials: str,
    mantis_run: str,
    store_url: str,
    run: dsl.OutputPath(str),  # type: ignore[valid-type]
    plan: dsl.Output[dsl.Markdown],
    learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    nodes: str = "",
    benchmarks: str = "",
) -> list[dict[str, str]]:
    """Check every arm of a sweep like `preflight`. `run` is the id of the run that compares the arms.

    The loop needs each dataset once, also if several arms use it.
    """
    from mantis.runs.step_runner import component_main
    from pipelines.execution.form.form_fields import overrides_of
    from pipelines.execution.form.run_plan import loop_over_datasets, write_plan
    from pipelines.execution.sweeps.search_tasks import prepare_asked

    with component_main():
        fields = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size, "nodes": nodes}
        changes = overrides_of(overrides, {**fields, "benchmarks": benchmarks})
        checked = prepare_asked(recipe, changes, over, mantis_run, store_url, trials=trials)
        return write_plan(checked, loop_over_datasets(checked), str(run), plan.path)


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
def trials(trials: str, datasets: dsl.Input[list[dsl.Dataset]]) -> list[dict[str, str]]:
    """List the numbers of the trials, after all datasets are prepared."""
    return [{"number": str(number)} for number in range(int(trials))]


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def ask(run: str, store_url: str, number: str) -> str:
    """Ask Optuna for the values of a trial of the search `run`. Return the trial's run; empty if nothing has to run."""
    from mantis.runs.step_runner import component_main, open_run
    from pipelines.execution.sweeps.search_tasks import ask_in_turn, stored_search

    with component_main():
        return ask_in_turn(stored_search(open_run(run, store_url)), int(number))


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def train_trial(run: str, store_url: str, mixture: dsl.Input[dsl.Dataset], checkpoint: dsl.Output[dsl.Model]) -> bool:
    """Train like `train`, and record the trial's held-out loss. Return whether it was not pruned."""
    from pathlib import Path

    from mantis.artifacts.manifest import load_manifest
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run
    from pipelines.execution.sweeps import search_tasks

    with component_main():
        opened = open_run(run, store_url)
        made = search_tasks.train_trial(opened, load_manifest(mixture.path))
        if made is None:
            Path(checkpoint.path).write_text("The trial was pruned.")
            checkpoint.metadata["pruned"] = "yes"
            return False
        hand_on(opened, made, checkpoint, learning_rate=f"{opened.recipe.training.learning_rate:g}")
        return True


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def compare_trials(
    run: str, store_url: str, arms: list[str], page: dsl.Output[dsl.HTML], text: dsl.Output[dsl.Markdown]
) -> None:
    """Compare the complete trials of a search, after all trials have ended."""
    from components.reporting.step import hand_over
    from mantis.runs.step_runner import component_main, open_run
    from pipelines.execution.sweeps.search_runs import compare_complete

    with component_main():
        opened = open_run(run, store_url)
        hand_over(opened.store, compare_complete(opened), page.path, text.path)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def existing_model(run: str, store_url: str, eval_model: str, model: dsl.Output[dsl.Model]) -> None:
    """Return the model of the store that `eval_model` names."""
    from mantis.runs.kfp_artifacts import hand_on
    from mantis.runs.step_runner import component_main, open_run, record_existing
    from pipelines.execution.preflight import find_model

    with component_main():
        opened = open_run(run, store_url)
        hand_on(opened, record_existing(opened, "model", lambda: find_model(opened.store, eval_model)), model)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def finish(
    recipe: str,
    overrides: str,
    mantis_run: str,
    store_url: str,
    last_step: str,
    learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    nodes: str = "",
    benchmarks: str = "",
    eval_model: str = "",
) -> None:
    """Close the MLflow run with the right status and write the run's summary, after success and after failure."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import finalize as last
    from pipelines.execution.form.form_fields import asked_overrides

    with component_main():
        fields = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size, "nodes": nodes}
        changes = asked_overrides(overrides, {**fields, "benchmarks": benchmarks})
        if changes is not None:
            last.finish(recipe, changes, mantis_run, store_url, last_step=last_step, model=eval_model)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def finish_arms(
    recipe: str,
    overrides: str,
    mantis_run: str,
    store_url: str,
    learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    nodes: str = "",
    benchmarks: str = "",
) -> None:
    """Close every arm of an ablation, and the run that compares them, like `finish`."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution import ablation_runs as ablation
    from pipelines.execution.form.form_fields import asked_overrides

    with component_main():
        fields = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size, "nodes": nodes}
        changes = asked_overrides(overrides, {**fields, "benchmarks": benchmarks})
        if changes is not None:
            ablation.finish_arms(recipe, changes, mantis_run, store_url)


@dsl.component(base_image=PIPELINE_IMAGE, install_kfp_package=False)
def finish_sweep(
    recipe: str,
    overrides: str,
    over: str,
    trials: str,
    mantis_run: str,
    store_url: str,
    learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    nodes: str = "",
    benchmarks: str = "",
) -> None:
    """Close every arm of a sweep, and the run that compares them, like `finish`."""
    from mantis.runs.step_runner import component_main
    from pipelines.execution.form.form_fields import asked_overrides
    from pipelines.execution.sweeps.sweep_end import close_sweep

    with component_main():
        fields = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size, "nodes": nodes}
        changes = asked_overrides(overrides, {**fields, "benchmarks": benchmarks})
        if changes is not None:
            close_sweep(recipe, changes, over, mantis_run, store_url, trials=trials)
