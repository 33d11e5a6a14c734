"""The part of a DAG that ablations and sweeps share: train, convert and evaluate every arm, then compare the arms."""

from typing import Any

from kfp import dsl

from components.conversion.component import convert
from components.data.component import prepare, prepare_mixture
from components.evaluation.component import benchmarks, evaluate
from components.reporting.component import compare, report
from components.training.component import train
from pipelines.component import arms
from pipelines.execution.platform import most_arms, short, step


def prepare_run_and_compare(run: Any, store_url: Any, subsets: Any) -> None:
    """Add the tasks of all arms of the run `run`, after those that prepare `subsets`; channels of KFP tasks."""
    with dsl.ParallelFor(subsets, name="each-subset") as item:
        prepared = step("prepare", prepare(run=item.run, store_url=store_url, subset=item.subset))
    each = short(arms(run=run, store_url=store_url, datasets=dsl.Collected(prepared.outputs["dataset"])))
    with dsl.ParallelFor(each.output, name="each-arm", parallelism=most_arms()) as arm:
        mixture = step("assemble", prepare_mixture(run=arm.run, store_url=store_url)).outputs["mixture"]
        trained = step("train", train(run=arm.run, store_url=store_url, mixture=mixture))
        checkpoint = trained.outputs["checkpoint"]
        model = step("convert", convert(run=arm.run, store_url=store_url, checkpoint=checkpoint)).outputs["model"]
        questions = short(benchmarks(run=arm.run, store_url=store_url))
        with dsl.ParallelFor(questions.output, name="each-benchmark") as item:
            evaluated = step(
                "evaluate", evaluate(run=item.run, store_url=store_url, benchmark=item.benchmark, model=model)
            )
        evaluations = dsl.Collected(evaluated.outputs["evaluation"])
        written = step("report", report(run=arm.run, store_url=store_url, evaluations=evaluations))
    step("compare", compare(run=run, store_url=store_url, reports=dsl.Collected(written.outputs["page"])))
