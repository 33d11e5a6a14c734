from pathlib import Path

from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from pipelines.execution.form.run_plan import loop_over, plan_text
from pipelines.execution.resolve import resolve_run


def run_of(folder: Path, changes: dict[str, str]) -> Run:
    run_id, recipe = resolve_run("demo", changes, "")
    return Run(id=run_id, store=LocalStore(folder), recipe=recipe)


def test_the_plan_names_the_run_its_settings_and_the_iterations_of_the_loop(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"training.learning_rate": "5e-6", "evaluation.benchmarks": "[demo-single, demo-multi]"})
    items = loop_over(run, evaluates=True)
    assert items == [{"run": run.id, "benchmark": name} for name in ("demo-single", "demo-multi")]
    text = plan_text(run, items)
    assert text.startswith(f"# Run {run.id}\n")
    assert "| learning rate | 5e-06 |" in text
    assert r"training.learning\_rate = 5e-06" in text, "KFP takes a pair of underscores for emphasis"
    assert "| iteration | benchmark |\n|---|---|\n| 0 | demo-single |\n| 1 | demo-multi |" in text


def test_a_run_that_only_prepares_data_loops_over_subsets(tmp_path: Path) -> None:
    run = run_of(tmp_path, {})
    items = loop_over(run, evaluates=False)
    assert items == [{"run": run.id, "subset": name} for name in ("demo-multi", "demo-single")]
    assert "| iteration | subset |\n|---|---|\n| 0 | demo-multi |" in plan_text(run, items)
