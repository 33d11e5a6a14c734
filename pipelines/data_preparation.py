"""The data part alone: prepare every subset, and assemble the mixture."""

from kfp import dsl

from components.data.component import assemble, prepare, subsets
from pipelines.component import finish, preflight
from pipelines.execution.platform import pipeline, short, step


@pipeline(
    name="data-preparation",
    display_name="Mantis: data preparation",
    description="Prepares the subsets of a recipe and assembles their mixture. A later training of the same recipe "
    "reuses both. Set run_recipe to the name of a shipped recipe, a store URL or YAML text. Set run_overrides to "
    'dotted fields, e.g. {"data.source": "s3://bucket/raw"}. If run_name is empty, the name follows from the recipe. '
    "Set store_url to s3://bucket/prefix.",
)
def data_preparation(
    run_recipe: str = "demo",
    run_overrides: dict[str, str] = {},  # noqa: B006 (a KFP default, never mutated)
    run_name: str = "",
    store_url: str = "s3://mantis",
) -> None:
    """Build the DAG; the pipeline's description explains the parameters."""
    asked = {"run_recipe": run_recipe, "run_overrides": run_overrides, "run_name": run_name, "store_url": store_url}
    with dsl.ExitHandler(short(finish(**asked, last_step="assemble", eval_model="")), name="run"):
        run = short(preflight(**asked, eval_model="", evaluates=False)).output
        chosen = short(subsets(run=run, store_url=store_url))
        with dsl.ParallelFor(chosen.output, name="each-subset") as item:
            prepared = step("prepare", prepare(run=item.run, store_url=store_url, subset=item.subset))
        step("assemble", assemble(run=run, store_url=store_url, datasets=dsl.Collected(prepared.outputs["dataset"])))
