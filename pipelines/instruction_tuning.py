"""The whole workflow: prepare a mixture, train, convert, evaluate, report; and deploy, if the recipe wants it."""

from kfp import dsl

from components.conversion.component import convert
from components.data.component import prepare_mixture
from components.evaluation.component import evaluate
from components.reporting.component import report
from components.serving.component import deploy
from components.training.component import train
from pipelines.component import finish, preflight
from pipelines.execution.form.descriptions import COMMON, TRAINING
from pipelines.execution.platform import most, pipeline, server_resources, short, step


@pipeline(
    name="instruction-tuning",
    display_name="Mantis: multi-image instruction tuning",
    description="Prepares a data mixture, trains a model on it, and converts the checkpoint with a proof of equality. "
    "Then it evaluates the model with controls and intervals, and writes a report. With `cluster.deploy`, it also "
    f"writes the objects of a server. A step reuses its result if the store already has it. {TRAINING} {COMMON}",
)
def instruction_tuning(
    recipe: str = "demo",
    learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    nodes: str = "",
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
        # One task for all subsets: it uses every core, and mostly takes datasets from the store. The pipeline
        # data-preparation has a pod for each subset.
        mixture = step("prepare", prepare_mixture(run=run, store_url=store_url)).outputs["mixture"]
        trained = step("train", train(run=run, store_url=store_url, mixture=mixture))
        converted = step("convert", convert(run=run, store_url=store_url, checkpoint=trained.outputs["checkpoint"]))
        model = converted.outputs["model"]
        # Beside the evaluation. kfp.local resolves no output of another name in a condition.
        with dsl.If(converted.outputs["Output"] == True, name="if-deployed"):  # noqa: E712 (builds a condition)
            short(deploy(run=run, store_url=store_url, model=model, resources=server_resources()))
        with dsl.ParallelFor(checked.outputs["Output"], name="each-benchmark", parallelism=most("evaluate")) as item:
            # Each item carries the run: inside a loop, kfp.local replaces other tasks' outputs by the item.
            evaluated = step(
                "evaluate", evaluate(run=item.run, store_url=store_url, benchmark=item.benchmark, model=model)
            )
        evaluations = dsl.Collected(evaluated.outputs["evaluation"])
        step("report", report(run=run, store_url=store_url, evaluations=evaluations))
