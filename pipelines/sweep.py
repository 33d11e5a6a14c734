"""A sweep: prepare data once, then train, convert and evaluate an arm for each combination, then compare the arms."""

from kfp import dsl

from components.data.component import arm_subsets
from pipelines.arm_loop import prepare_run_and_compare
from pipelines.component import finish_sweep, preflight_sweep
from pipelines.execution.platform import pipeline, short


@pipeline(
    name="sweep",
    display_name="Mantis: sweep",
    description="Trains one model for each combination of values of recipe fields. Every arm is a run of its own, with "
    "a report. One more report says which arm is best and how sure that is. Data that arms share is prepared once. Set "
    "run_recipe to the name of a shipped recipe, a store URL or YAML text. Set run_over to lists of values by dotted "
    'field, e.g. {"training.learning_rate": ["2e-4", "4e-4"], "training.seed": ["1", "2"]}. run_overrides are changes '
    "that all arms share. If run_name is empty, the name follows from the recipe. Set store_url to s3://bucket/prefix. "
    "`mantis pipeline submit --parallel` limits the arms that run at the same time.",
)
def sweep(
    run_recipe: str = "demo",
    run_overrides: dict[str, str] = {},  # noqa: B006 (a KFP default, never mutated)
    run_over: dict[str, list[str]] = {"training.learning_rate": ["2e-4", "4e-4"]},  # noqa: B006
    run_name: str = "",
    store_url: str = "s3://mantis",
) -> None:
    """Build the DAG; the pipeline's description explains the parameters."""
    asked = {
        "run_recipe": run_recipe,
        "run_overrides": run_overrides,
        "run_over": run_over,
        "run_name": run_name,
        "store_url": store_url,
    }
    with dsl.ExitHandler(short(finish_sweep(**asked)), name="run"):
        run = short(preflight_sweep(**asked)).output
        chosen = short(arm_subsets(run=run, store_url=store_url))
        prepare_run_and_compare(run, store_url, chosen.output)
