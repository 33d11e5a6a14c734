"""What `mantis run` and `mantis data prepare` share: check a recipe, then run a DAG of it on this machine."""

from components.core.steps import Run
from components.core.store import default_store_url
from pipelines.terminal import console, overrides_of, recipe_argument


def start(
    recipe: str, set_: list[str], source: str | None, name: str, store: str, pipeline: str = "instruction-tuning"
) -> Run:
    """Run `pipeline` to its end, drawing its steps; returns the run.

    Raises:
        MantisError: the recipe will not do, a step failed, or somebody pressed Ctrl-C.
    """
    from pipelines.finish import close_run
    from pipelines.launch import InterruptedRunError, run_dag
    from pipelines.preflight import preflight

    overrides, text = overrides_of(set_, source), recipe_argument(recipe)
    store_url = store or default_store_url()
    checked = preflight(text, overrides, name, store_url, evaluates=pipeline == "instruction-tuning")
    console.print(f"run [bold]{checked.id}[/]  store {checked.store.url}")
    parameters = {"run_recipe": text, "run_overrides": overrides, "run_name": name, "store_url": store_url}
    try:
        run_dag(checked, parameters, console, pipeline)
    except InterruptedRunError:
        close_run(checked, "KILLED")
        raise
    return checked
