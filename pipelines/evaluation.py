"""Evaluation alone: evaluate a model of the store on the benchmarks of a recipe."""

from kfp import dsl

from components.evaluation.component import evaluate
from components.reporting.component import report
from pipelines.component import existing_model, finish, preflight
from pipelines.execution.form.descriptions import COMMON
from pipelines.execution.platform import most, pipeline, short, step


@pipeline(
    name="evaluation",
    display_name="Mantis: evaluation of an existing model",
    description="Evaluates a model of the store on a recipe's benchmarks, with controls and intervals, and writes a "
    "report. Set `eval_model` to the model's key in the store or its URI, e.g. `models/<fingerprint>`. Only the "
    "section `evaluation` of the recipe matters. Change `benchmarks` (demo-multi, demo-single) directly. "
    f"{COMMON}",
)
def evaluation(
    eval_model: str = "models/FINGERPRINT",
    recipe: str = "demo",
    benchmarks: str = "",
    overrides: str = "",
    mantis_run: str = "",
    store_url: str = "s3://mantis",
) -> None:
    """Build the DAG; the pipeline's description explains the parameters."""
    asked = dict(locals())  # every field of the form, by its name
    with dsl.ExitHandler(short(finish(**asked, last_step="report")), name="run"):
        checked = short(preflight(**asked))
        run = checked.outputs["run"]
        found = short(existing_model(run=run, store_url=store_url, eval_model=eval_model))
        with dsl.ParallelFor(checked.outputs["Output"], name="each-benchmark", parallelism=most("evaluate")) as item:
            evaluated = step(
                "evaluate",
                evaluate(run=item.run, store_url=store_url, benchmark=item.benchmark, model=found.outputs["model"]),
            )
        evaluations = dsl.Collected(evaluated.outputs["evaluation"])
        step("report", report(run=run, store_url=store_url, evaluations=evaluations))
