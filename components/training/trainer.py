"""The training loop of one rank."""

import time
from collections.abc import Iterator

import torch.distributed as dist

from components.training.batching.data_loader import DataLoader, StepBatch
from components.training.callbacks.callback_list import CallbackList
from components.training.callbacks.held_out_loss import HeldOutLoss
from components.training.checkpointing.saver import Saver, TrainingState
from components.training.engine.deepspeed_engine import Engine
from components.training.monitoring.goodput import Cause
from components.training.monitoring.signals import PrunedError, StoppedError
from components.training.monitoring.step_metrics import StepFigures
from components.training.train_step import TrainStep
from mantis.artifacts.layout import step_folder


class Trainer:
    """Takes all optimizer steps that are not done yet, and saves checkpoints; the same calls are made on every rank.

    `build_trainer` makes one from a run. Everything that only observes a step is a callback. `held_out` may end the
    training before its last step.

    Args:
        engine: the model in training, restored to `state`.
        train_step: takes one optimizer step.
        feed: this rank's micro-steps, from `state.step` on.
        saver: stores checkpoints.
        callbacks: observers; their memory is part of each checkpoint.
        state: steps, samples and tokens done so far.
        steps: optimizer steps of the whole training.
        save_every: steps between two checkpoints.
        held_out: decides whether to keep a step, and whether to stop early; None: the recipe has no evaluation.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        train_step: TrainStep,
        feed: DataLoader,
        saver: Saver,
        callbacks: CallbackList,
        state: TrainingState,
        steps: int,
        save_every: int,
        held_out: HeldOutLoss | None = None,
    ) -> None:
        self.engine = engine
        self.train_step = train_step
        self.feed = feed
        self.saver = saver
        self.callbacks = callbacks
        self.state = state
        self.steps = steps
        self.save_every = save_every
        self.held_out = held_out

    def train(self) -> None:
        """Take the steps that are left, wait for the last checkpoint, and let the callbacks store the result.

        Raises:
            StoppedError: a signal came; the state is saved.
            PrunedError: the run is a hopeless trial of a sweep; the state is saved.
            TrainingError: the loss or the gradient is not finite, a sample cannot be prepared, or saving failed.
        """
        self.callbacks.load_state_dict(self.state.callbacks)
        self.callbacks.on_start(self)
        self.engine.deepspeed.train()
        with self.feed:
            works = iter(self.feed)
            while not self._is_done:
                stopping = self._step(works)
                self._save_if_due(stopping)
        self.callbacks.on_phase(Cause.SAVE, self.state.step)
        self.saver.wait()
        dist.barrier()
        self.callbacks.on_phase(Cause.FINISH, self.state.step)
        self.callbacks.on_end(self)

    def announce(self, phase: Cause, step: int, detail: str = "") -> None:
        """Tell all callbacks of a phase that one of them enters."""
        self.callbacks.on_phase(phase, step, detail)

    @property
    def _is_done(self) -> bool:
        return self.state.step >= self.steps or (self.held_out is not None and self.held_out.stops)

    def _step(self, works: Iterator[StepBatch]) -> bool:
        """Wait for the data of the next step and train on it; returns whether a signal asked any rank to stop."""
        step = self.state.step + 1
        self.callbacks.on_phase(Cause.DATA, step)
        waiting = time.monotonic()
        work = next(works)
        waited = time.monotonic() - waiting
        self.callbacks.on_phase(Cause.STEP, step)
        figures, stopping = self.train_step.take(work, waited=waited)
        self.callbacks.on_phase(Cause.OTHER, step)
        self._count(figures)
        self.callbacks.after_step(step, figures)
        return stopping

    def _count(self, figures: StepFigures) -> None:
        self.state = self.state.model_copy(
            update={
                "step": self.state.step + 1,
                "samples": self.state.samples + figures.samples,
                "tokens": self.state.tokens + figures.tokens,
            }
        )

    def _save_if_due(self, stopping: bool) -> None:
        step = self.state.step
        self.saver.check()
        pruned = self.held_out is not None and self.held_out.gives_up
        stopping = stopping or pruned
        best = self.held_out.best_to_keep if self.held_out else None
        if not stopping and step % self.save_every and step != best and not self._is_done:
            return
        self.callbacks.on_phase(Cause.SAVE, step)
        state = self.state.model_copy(update={"callbacks": self.callbacks.state_dict()})
        files = self.held_out.probe_files() if self.held_out and step == best else {}
        self.saver.save(self.engine.deepspeed, state, best=best, files=files)
        self.callbacks.on_save(step)
        if stopping:
            self.saver.wait()
            dist.barrier()
        self.callbacks.on_phase(Cause.OTHER, step)
        if pruned:
            raise PrunedError(
                f"Stopped after step {step} of {self.steps}: "
                "the held-out loss is above the median of the sweep's trials.",
                remedy="The sweep goes on without this trial. Run its recipe under another name to train it whole.",
            )
        if stopping and not self._is_done:
            self.callbacks.on_stop(step)
            raise StoppedError(
                f"Training was asked to stop and did so after step {step} of {self.steps}; "
                f"{step_folder(step)} is saved.",
                remedy="The same command goes on from there.",
            )
