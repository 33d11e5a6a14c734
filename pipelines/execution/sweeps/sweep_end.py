"""The end of a sweep on Kubeflow Pipelines, whatever became of its tasks."""

import logging
from collections.abc import Mapping

from mantis.errors import ConfigError
from mantis.runs.step_runner import Run
from pipelines.execution.ablation_runs import record_ends
from pipelines.execution.finalize import NOT_STARTED, check_ours, delete_jobs, started
from pipelines.execution.resolve import resolve_run
from pipelines.execution.sweeps.search_space import Over
from pipelines.execution.sweeps.sweep_runs import plan_sweep

logger = logging.getLogger(__name__)


def close_sweep(recipe: str, overrides: Mapping[str, str], over: Over, name: str, store_url: str) -> None:
    """Delete the remaining TrainJobs of the arms, then close the arms and the sweep of these parameters.

    A sweep that preflight refused has nothing to close.
    """
    try:
        sweep = plan_sweep(recipe, overrides, over, name, store_url)
        store, parent = sweep.parent.store, sweep.parent
        arms = [
            Run(
                id=arm.run,
                store=store,
                recipe=resolve_run(recipe, {**overrides, **arm.changes}, "", store_url)[1],
                parent=parent.id,
            )
            for arm in sweep.arms
        ]
        for run in (parent, *arms):
            check_ours(run)
    except ConfigError:
        logger.warning(NOT_STARTED)
        return
    for arm in arms:
        delete_jobs(arm)
    if begun := started(parent):
        record_ends(begun)
