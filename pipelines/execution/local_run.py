"""What `mantis run`, `ablate` and `data prepare` share: check a recipe, then run a DAG of it on this machine."""

from collections.abc import Mapping

from mantis.runs.step_runner import Run
from mantis.store.base import default_store_url
from mantis.tracking.mlflow_runs import Status
from pipelines.terminal import console, overrides_of, recipe_argument


def start(
    recipe: str, set_: list[str], source: str | None, name: str, store: str, pipeline: str = "instruction-tuning"
) -> Run:
    """Run `pipeline` to its end, drawing its steps; returns the run.

    Raises:
        MantisError: the recipe will not do, a step failed, or somebody pressed Ctrl-C.
    """
    from pipelines.execution.supervisor import InterruptedRunError, run_dag

    overrides, text = overrides_of(set_, source), recipe_argument(recipe)
    store_url = store or default_store_url()
    checked = _checked(pipeline, text, overrides, name, store_url)
    console.print(f"run [bold]{checked.id}[/]  store {checked.store.url}")
    parameters = {"run_recipe": text, "run_overrides": overrides, "run_name": name, "store_url": store_url}
    try:
        run_dag(checked, parameters, console, pipeline)
    except InterruptedRunError:
        _close_killed(checked, pipeline)
        raise
    return checked


def _checked(pipeline: str, recipe: str, overrides: Mapping[str, object], name: str, store_url: str) -> Run:
    from pipelines.execution.ablation_runs import preflight_arms
    from pipelines.execution.preflight import preflight

    if pipeline == "ablation":
        return preflight_arms(recipe, overrides, name, store_url)
    return preflight(recipe, overrides, name, store_url, evaluates=pipeline == "instruction-tuning")


def _close_killed(run: Run, pipeline: str) -> None:
    from pipelines.execution.ablation_runs import close_arms
    from pipelines.execution.finalize import close_run

    if pipeline == "ablation":
        close_arms(run)
    else:
        close_run(run, Status.KILLED)
