"""The data part alone: prepare every subset, and assemble the mixture."""

from kfp import dsl

from components.data.component import assemble, prepare
from pipelines.component import finish, preflight
from pipelines.execution.form.descriptions import COMMON
from pipelines.execution.platform import most, pipeline, short, step


@pipeline(
    name="data-preparation",
    display_name="Mantis: data preparation",
    description="Prepares the subsets of a recipe, each in a pod of its own, and assembles their mixture. A later "
    f"training of the same recipe reuses both. {COMMON}",
)
def data_preparation(
    recipe: str = "demo",
    overrides: str = "",
    mantis_run: str = "",
    store_url: str = "s3://mantis",
) -> None:
    """Build the DAG; the pipeline's description explains the parameters."""
    asked = dict(locals())  # every field of the form, by its name
    with dsl.ExitHandler(short(finish(**asked, last_step="assemble")), name="run"):
        checked = short(preflight(**asked, evaluates=False))
        with dsl.ParallelFor(checked.outputs["Output"], name="each-subset", parallelism=most("prepare")) as item:
            # Each item carries the run: inside a loop, kfp.local replaces other tasks' outputs by the item.
            prepared = step("prepare", prepare(run=item.run, store_url=store_url, subset=item.subset))
        datasets = dsl.Collected(prepared.outputs["dataset"])
        step("assemble", assemble(run=checked.outputs["run"], store_url=store_url, datasets=datasets))
