"""Evaluation alone: evaluate a model of the store on the benchmarks of a recipe."""

from kfp import dsl

from components.evaluation.component import benchmarks, evaluate
from components.reporting.component import report
from pipelines.component import existing_model, finish, preflight
from pipelines.execution.platform import pipeline, short, step


@pipeline(
    name="evaluation",
    display_name="Mantis: evaluation of an existing model",
    description="Evaluates a model of the store on a recipe's benchmarks, with controls and intervals, and writes a "
    "report. Set eval_model to the model's key in the store or its URI, e.g. models/<fingerprint>. Set run_recipe to "
    "the name of a shipped recipe, a store URL or YAML text; only its section `evaluation` matters. Set run_overrides "
    "to dotted fields. If run_name is empty, the name follows from recipe and model. Set store_url to "
    "s3://bucket/prefix.",
)
def evaluation(
    eval_model: str = "models/FINGERPRINT",
    run_recipe: str = "demo",
    run_overrides: dict[str, str] = {},  # noqa: B006 (a KFP default, never mutated)
    run_name: str = "",
    store_url: str = "s3://mantis",
) -> None:
    """Build the DAG; the pipeline's description explains the parameters."""
    asked = {"run_recipe": run_recipe, "run_overrides": run_overrides, "run_name": run_name, "store_url": store_url}
    with dsl.ExitHandler(short(finish(**asked, last_step="report", eval_model=eval_model)), name="run"):
        run = short(preflight(**asked, eval_model=eval_model, evaluates=True)).output
        found = short(existing_model(run=run, store_url=store_url, eval_model=eval_model))
        questions = short(benchmarks(run=run, store_url=store_url))
        with dsl.ParallelFor(questions.output, name="each-benchmark") as item:
            evaluated = step(
                "evaluate",
                evaluate(run=item.run, store_url=store_url, benchmark=item.benchmark, model=found.outputs["model"]),
            )
        step("report", report(run=run, store_url=store_url, evaluations=dsl.Collected(evaluated.outputs["evaluation"])))
