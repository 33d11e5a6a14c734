"""The skill ablation: prepare data once, then train, convert and evaluate every arm, then compare the arms."""

from kfp import dsl

from components.data.component import subsets
from pipelines.arm_loop import prepare_run_and_compare
from pipelines.component import finish_arms, preflight_arms
from pipelines.execution.platform import pipeline, short


@pipeline(
    name="ablation",
    display_name="Mantis: skill ablation",
    description="Trains one model per skill of data.skills, each with the skills before it: [coref], [coref, compare] "
    "and so on. Every arm is a run of its own, with a report. One more report compares the arms on the same samples. "
    "Subsets are prepared once. Set run_recipe to the name of a shipped recipe, a store URL or YAML text. Set "
    'run_overrides to dotted fields, e.g. {"data.skills": "[coref, compare]"}. If run_name is empty, the name follows '
    "from the recipe. Set store_url to s3://bucket/prefix.",
)
def ablation(
    run_recipe: str = "ablation-siglip",
    run_overrides: dict[str, str] = {},  # noqa: B006 (a KFP default, never mutated)
    run_name: str = "",
    store_url: str = "s3://mantis",
) -> None:
    """Build the DAG; the pipeline's description explains the parameters."""
    asked = {"run_recipe": run_recipe, "run_overrides": run_overrides, "run_name": run_name, "store_url": store_url}
    with dsl.ExitHandler(short(finish_arms(**asked)), name="run"):
        run = short(preflight_arms(**asked)).output
        chosen = short(subsets(run=run, store_url=store_url))
        prepare_run_and_compare(run, store_url, chosen.output)
