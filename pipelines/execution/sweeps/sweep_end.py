"""The end of a sweep on Kubeflow Pipelines, whatever became of its tasks."""

from collections.abc import Mapping

from mantis.runs.step_runner import Run
from pipelines.execution.ablation_runs import close_planned
from pipelines.execution.resolve import resolve_run
from pipelines.execution.sweeps.search_space import over_of
from pipelines.execution.sweeps.sweep_runs import plan_sweep


def close_sweep(recipe: str, overrides: Mapping[str, str], over: str, name: str, store_url: str) -> None:
    """Delete the remaining TrainJobs of the arms, then close the arms and the sweep of these parameters.

    `over` is the text of KFP's form. A sweep that preflight refused has nothing to close.
    """

    def planned() -> tuple[Run, list[Run]]:
        sweep = plan_sweep(recipe, overrides, over_of(over), name, store_url)
        arms = [
            Run(
                id=arm.run,
                store=sweep.parent.store,
                recipe=resolve_run(recipe, {**overrides, **arm.changes}, "", store_url)[1],
                parent=sweep.parent.id,
            )
            for arm in sweep.arms
        ]
        return sweep.parent, arms

    close_planned(planned)
