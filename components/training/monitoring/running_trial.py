"""A training that is a trial of a sweep: it gives up if its held-out loss is hopeless beside the other trials."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from components.training.engine.deepspeed_engine import DistributedContext
from mantis.runs.trials import TrialState, is_hopeless, read_trials, write_trial
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """The trial of the run `run` among those of `sweep` in the store. The first of `ranks` decides for all."""

    store: ObjectStore
    run: str
    sweep: str
    ranks: DistributedContext

    def is_hopeless(self, points: Sequence[tuple[int, float]], *, steps: int) -> bool:
        """Whether a training of `steps` steps gives up; collective. Then its trial is recorded as pruned.

        `points` are step and held-out loss of each evaluation so far.

        Raises:
            StoreError: the store cannot be reached.
        """
        pruned = self.ranks.is_main and self._prune(points, steps)
        return self.ranks.all_reduce_sum(float(pruned))[0] > 0

    def _prune(self, points: Sequence[tuple[int, float]], steps: int) -> bool:
        trials = read_trials(self.store, self.sweep)
        own = [trial for trial in trials if trial.run == self.run and trial.state is TrialState.STARTED]
        if not own or not is_hopeless(points, trials, steps=steps):
            return False
        logger.info("Trial %d is pruned: its held-out loss is above the median", own[0].number + 1)
        for trial in own:
            write_trial(self.store, self.sweep, trial.ended(TrialState.PRUNED, points))
        return True
