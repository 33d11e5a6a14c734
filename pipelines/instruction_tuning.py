"""The whole workflow: prepare, assemble, train, convert, evaluate, report; and deploy, if the recipe wants it."""

from kfp import dsl

from components.conversion.component import convert
from components.data.component import assemble, prepare, subsets
from components.evaluation.component import benchmarks, evaluate
from components.reporting.component import report
from components.serving.component import deploy
from components.training.component import train
from pipelines.component import finish, preflight
from pipelines.execution.platform import pipeline, server_resources, short, step


@pipeline(
    name="instruction-tuning",
    display_name="Mantis: multi-image instruction tuning",
    description="Prepares a data mixture, trains a model on it, and converts the checkpoint with a proof of equality. "
    "Then it evaluates the model with controls and intervals, and writes a report. With cluster.deploy, it also writes "
    "the objects of a server. A step reuses its result if the "
    "store already has it. Set run_recipe to the name of a shipped recipe, a store URL or YAML text. Set "
    'run_overrides to dotted fields, e.g. {"training.learning_rate": "5e-6"}. If run_name is empty, the name follows '
    "from the recipe. Set store_url to s3://bucket/prefix.",
)
def instruction_tuning(
    run_recipe: str = "demo",
    run_overrides: dict[str, str] = {},  # noqa: B006 (a KFP default, never mutated)
    run_name: str = "",
    store_url: str = "s3://mantis",
) -> None:
    """Build the DAG; the pipeline's description explains the parameters."""
    asked = {"run_recipe": run_recipe, "run_overrides": run_overrides, "run_name": run_name, "store_url": store_url}
    with dsl.ExitHandler(short(finish(**asked, last_step="report", eval_model="")), name="run"):
        run = short(preflight(**asked, eval_model="", evaluates=True)).output
        chosen = short(subsets(run=run, store_url=store_url))
        with dsl.ParallelFor(chosen.output, name="each-subset") as item:
            # Each item carries the run: inside a loop, kfp.local replaces other tasks' outputs by the item.
            prepared = step("prepare", prepare(run=item.run, store_url=store_url, subset=item.subset))
        datasets = dsl.Collected(prepared.outputs["dataset"])
        mixture = step("assemble", assemble(run=run, store_url=store_url, datasets=datasets))
        trained = step("train", train(run=run, store_url=store_url, mixture=mixture.outputs["mixture"]))
        converted = step("convert", convert(run=run, store_url=store_url, checkpoint=trained.outputs["checkpoint"]))
        questions = short(benchmarks(run=run, store_url=store_url))
        with dsl.ParallelFor(questions.output, name="each-benchmark") as item:
            evaluated = step(
                "evaluate",
                evaluate(run=item.run, store_url=store_url, benchmark=item.benchmark, model=converted.outputs["model"]),
            )
        evaluations = dsl.Collected(evaluated.outputs["evaluation"])
        written = step("report", report(run=run, store_url=store_url, evaluations=evaluations))
        # kfp.local resolves no output of another name in a condition.
        with dsl.If(written.outputs["Output"] == True, name="if-deployed"):  # noqa: E712 (builds a condition)
            short(deploy(run=run, store_url=store_url, model=converted.outputs["model"], resources=server_resources()))
