"""What the loop of a pipeline runs over, and the text that describes a run on KFP's page from its first task on."""

from collections.abc import Sequence
from pathlib import Path

from components.data.step import datasets_of_arms, resolve_subsets
from components.evaluation.step import resolve_benchmarks
from components.reporting.render.markdown import escaped
from mantis.runs.arms import changes_in_words
from mantis.runs.step_runner import Run
from pipelines.execution.run_titles import changed_fields

Items = list[dict[str, str]]  # each holds a run, and a subset or a benchmark


def loop_over(run: Run, *, evaluates: bool) -> Items:
    """List the benchmarks of a run that `evaluates`, else its subsets. Each entry holds the run, too."""
    if evaluates:
        return [{"run": run.id, "benchmark": benchmark} for benchmark in resolve_benchmarks(run)]
    return [{"run": run.id, "subset": subset} for subset in resolve_subsets(run)]


def loop_over_datasets(sweep: Run) -> Items:
    """List the datasets that the arms of a sweep need, each once: an arm, and a subset."""
    return [{"run": arm, "subset": subset} for arm, subset in datasets_of_arms(sweep)]


def write_plan(run: Run, items: Items, run_file: str, plan_file: str) -> Items:
    """Write the id of the run and its description for KFP, and return the items of the loop."""
    Path(run_file).write_text(run.id)
    Path(plan_file).write_text(plan_text(run, items))
    return items


def plan_text(run: Run, items: Sequence[dict[str, str]]) -> str:
    """Describe a run in Markdown: its name, its settings, and the name behind each number of the loop.

    KFP numbers the iterations of a loop, and shows no other name for them.
    """
    training, changed = run.recipe.training, changed_fields(run.recipe)
    settings = {
        "recipe": run.recipe.name,
        "changed": changes_in_words(changed) or "nothing",
        "learning rate": f"{training.learning_rate:g}",
        "epochs": f"{training.epochs:g}",
        "batch size": f"{training.global_batch_size:,}",
        "ranks": f"{training.nodes} x {training.gpus_per_node}, launcher {training.launcher}",
        "benchmarks": ", ".join(run.recipe.evaluation.benchmarks) or "none",
        "store": run.store.url,
    }
    rows = [f"| {name} | {escaped(value)} |" for name, value in settings.items()]
    kind = "benchmark" if items and "benchmark" in items[0] else "subset"
    loop = [f"| {number} | {escaped(item[kind])} |" for number, item in enumerate(items)]
    head = [f"# Run {escaped(run.id)}", "", "| setting | value |", "|---|---|"]
    names = ["", f"The loop each-{kind}:", "", f"| iteration | {kind} |", "|---|---|"]
    return "\n".join([*head, *rows, *names, *loop, ""])
