"""The parts of a DAG that ablations and sweeps share: prepare data, train, convert and evaluate arms, compare them."""

from typing import Any

from kfp import dsl

from components.conversion.component import convert
from components.data.component import prepare, prepare_mixture
from components.evaluation.component import benchmarks, evaluate
from components.reporting.component import compare, report
from components.training.component import train
from pipelines.component import arms, ask, compare_trials, train_trial, trials
from pipelines.execution.platform import most, most_arms, short, step


def prepare_run_and_compare(run: Any, store_url: Any, subsets: Any) -> None:
    """Add the tasks of all arms of the run `run`, after those that prepare `subsets`; channels of KFP tasks."""
    each = short(arms(run=run, store_url=store_url, datasets=_prepare_all(store_url, subsets)))
    with dsl.ParallelFor(each.output, name="each-arm", parallelism=most_arms()) as arm:
        mixture = step("assemble", prepare_mixture(run=arm.run, store_url=store_url)).outputs["mixture"]
        trained = step("train", train(run=arm.run, store_url=store_url, mixture=mixture))
        written = _evaluate_and_report(arm.run, store_url, trained.outputs["checkpoint"])
    step("compare", compare(run=run, store_url=store_url, reports=dsl.Collected(written.outputs["page"])))


def prepare_search_and_compare(run: Any, store_url: Any, subsets: Any, number: Any) -> None:
    """Add the tasks of `number` trials of the search `run`, after those that prepare `subsets`; channels of KFP."""
    each = short(trials(trials=number, datasets=_prepare_all(store_url, subsets)))
    with dsl.ParallelFor(each.output, name="each-trial", parallelism=most_arms()) as trial:
        arm = short(ask(run=run, store_url=store_url, number=trial.number)).output
        with dsl.If(arm != "", name="new-values"):
            mixture = step("assemble", prepare_mixture(run=arm, store_url=store_url)).outputs["mixture"]
            trained = step("train", train_trial(run=arm, store_url=store_url, mixture=mixture))
            with dsl.If(trained.outputs["Output"] == True, name="not-pruned"):  # noqa: E712 (a condition of KFP)
                _evaluate_and_report(arm, store_url, trained.outputs["checkpoint"])
    step("compare", compare_trials(run=run, store_url=store_url, arms=dsl.Collected(arm)))


def _prepare_all(store_url: Any, subsets: Any) -> Any:
    """Add the tasks that prepare `subsets`, each for the run that it names; returns the datasets."""
    with dsl.ParallelFor(subsets, name="each-subset", parallelism=most("prepare")) as item:
        prepared = step("prepare", prepare(run=item.run, store_url=store_url, subset=item.subset))
    return dsl.Collected(prepared.outputs["dataset"])


def _evaluate_and_report(arm: Any, store_url: Any, checkpoint: Any) -> Any:
    model = step("convert", convert(run=arm, store_url=store_url, checkpoint=checkpoint)).outputs["model"]
    questions = short(benchmarks(run=arm, store_url=store_url))
    with dsl.ParallelFor(questions.output, name="each-benchmark", parallelism=most("evaluate")) as item:
        evaluated = step("evaluate", evaluate(run=item.run, store_url=store_url, benchmark=item.benchmark, model=model))
    evaluations = dsl.Collected(evaluated.outputs["evaluation"])
    return step("report", report(run=arm, store_url=store_url, evaluations=evaluations))
