"""The end of a sweep on Kubeflow Pipelines, whatever became of its tasks."""

from collections.abc import Mapping

from mantis.runs.step_runner import Run
from mantis.runs.trials import read_trials
from pipelines.execution.ablation_runs import close_planned
from pipelines.execution.resolve import resolve_run
from pipelines.execution.sweeps.search_runs import plan_search
from pipelines.execution.sweeps.search_space import over_of, trials_of
from pipelines.execution.sweeps.sweep_runs import plan_sweep


def close_sweep(
    recipe: str, overrides: Mapping[str, str], over: str, name: str, store_url: str, *, trials: str = ""
) -> None:
    """Delete the remaining TrainJobs of the arms, then close the arms and the sweep of these parameters.

    `over` and `trials` are texts of KFP's form. A search has the arms of its trials. A sweep that preflight refused has
    nothing to close.
    """

    def planned() -> tuple[Run, list[Run]]:
        parent, changes = _arms(recipe, overrides, over, name, store_url, trials=trials_of(trials))
        arms = [
            Run(
                id=arm,
                store=parent.store,
                recipe=resolve_run(recipe, {**overrides, **its_changes}, "", store_url)[1],
                parent=parent.id,
            )
            for arm, its_changes in changes.items()
        ]
        return parent, arms

    close_planned(planned)


def _arms(
    recipe: str, overrides: Mapping[str, str], over: str, name: str, store_url: str, *, trials: int
) -> tuple[Run, dict[str, Mapping[str, str]]]:
    if trials:
        parent = plan_search(recipe, overrides, over_of(over), name, store_url, trials=trials).parent
        return parent, {trial.run: trial.changes for trial in read_trials(parent.store, parent.id)}
    sweep = plan_sweep(recipe, overrides, over_of(over), name, store_url)
    return sweep.parent, {arm.run: arm.changes for arm in sweep.arms}
