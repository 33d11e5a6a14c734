"""The training loop of one rank."""

import gc
import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from components.core.artifacts import Manifest, Number
from components.core.errors import TrainingError
from components.core.progress import Progress, say
from components.core.steps import Run
from components.core.tracking import CurveSender
from components.models import registry
from components.models.mixture import MixtureReader
from components.training.accounting import Cause, Clock, Heartbeat
from components.training.checkpoint import LoopState, Saver, folder_of
from components.training.collate import to_device
from components.training.engine import Ranks, build_engine, cost_model
from components.training.failures import leave_failure
from components.training.feed import Feed, Preparer, Work
from components.training.finish import PROBE_SAMPLES, leave_files, probe_tensors
from components.training.guard import Guard, record_skipped
from components.training.loss import sample_losses, share_of_step
from components.training.metrics import Recorder, Row, StepFigures
from components.training.plan import Budgets, Lengths, Plan
from components.training.resume import restore
from components.training.schedule import learning_rate
from components.training.signals import StoppedError, StopRequest
from components.training.summary import write_summary
from components.training.watchdog import Watchdog, meeting_store

GARBAGE_STEPS = 50


class Loop:
    """Trains `run` on `mixture` and leaves the result under `prefix`; the same calls are made on every rank."""

    def __init__(self, run: Run, mixture: Manifest, prefix: str, ranks: Ranks, *, began: float, queued: float) -> None:
        recipe = run.recipe
        self.run, self.prefix, self.ranks = run, prefix, ranks
        self.settings, self.model_settings = recipe.training, recipe.model
        self.stop = StopRequest()
        self.clock = Clock(began)
        self.family = registry.family(recipe.model.family)
        self.reader = MixtureReader(run.store, mixture, cache_gb=recipe.data.cache_gb)
        self.preparer = Preparer(self.reader, self.family, recipe.model)
        model = self.family.build(self.reader.tokenizer(), recipe.model, seed=recipe.seed)
        self.plan = Plan(
            Lengths(tokens=self.reader.tokens.astype("int64"), patches=self.reader.patches.astype("int64")),
            seed=self.settings.seed,
            batch_size=self.settings.batch_size,
            epochs=self.settings.epochs,
            max_steps=self.settings.max_steps,
            budgets=Budgets(tokens=self.settings.token_budget, patches=self.settings.patch_budget),
            cost=cost_model(model, self.family, self.settings),
        )
        self.engine = build_engine(model, self.family, self.settings)
        self.recorder = Recorder(every=self.settings.log_every, steps=self.plan.steps)
        self.state = LoopState(step=0, seed=self.settings.seed)
        self.saver = Saver(
            run.store,
            prefix,
            rank=ranks.rank,
            world_size=ranks.world_size,
            zero_stage=self.settings.zero_stage,
            attempt=_agreed_token(ranks),
            keep=self.settings.checkpoint_keep,
            keep_every=self.settings.checkpoint_keep_every,
        )
        self.guard = Guard(spike=self.settings.loss_spike, skips=self.settings.skip_bad_steps)
        self.watchdog = Watchdog(
            meeting_store(),
            rank=ranks.rank,
            world_size=ranks.world_size,
            seconds=self.settings.hang_seconds,
            end=_end_hanging,
        )
        self.heartbeat = Heartbeat(run.store, prefix) if ranks.first else None
        self.clock.add(Cause.QUEUE, queued)
        self.clock.add(Cause.START, time.monotonic() - began - queued)

    def train(self) -> None:
        """All steps that are not done yet, and what a finished training leaves behind.

        Raises:
            StoppedError: a signal came; the state is saved.
            TrainingError: the loss or the gradient is not finite, a sample cannot be prepared, or saving failed.
        """
        with self.clock.spend(Cause.RESUME):
            self._resume()
        curve = CurveSender(self.run) if self.ranks.first else None
        for row in self.recorder.rows:  # of a killed attempt, which may not have sent them; none is sent twice
            _send(curve, row)
        self._steps(curve)
        self.watchdog.pause()
        with self.clock.spend(Cause.SAVE):
            self.saver.wait()
            dist.barrier()
        with self.clock.spend(Cause.FINISH):
            self._leave_result()
            if curve:
                curve.close()
            dist.barrier()
        if self.heartbeat:
            write_summary(self.run.store, self.prefix, self._summary())
            self.heartbeat.close()
        self.watchdog.close()

    def _resume(self) -> None:
        lost = self.heartbeat.last() if self.heartbeat else 0.0
        resumed = restore(
            self.engine.deepspeed, self.run.store, self.prefix, self.ranks, zero_stage=self.settings.zero_stage
        )
        if resumed:
            self.state = resumed.state
            self.recorder.rows, self.recorder.window = resumed.rows, dict(resumed.state.window)
            self.guard.resume(self.state.recent_losses, self.state.skipped)
        self.clock.inherit(self.state.seconds, lost=lost - sum(self.state.seconds.values()))
        if self.ranks.first:
            say(
                f"{self.plan.steps:,} steps of {self.settings.batch_size} samples, {self.plan.per_epoch:,} samples per "
                f"epoch, {self.engine.parameters:,} parameters, ZeRO-{self.settings.zero_stage} on "
                f"{self.ranks.world_size} ranks; DeepSpeed: {self.engine.config}"
            )

    def _steps(self, curve: CurveSender | None) -> None:
        start = self.state.step
        if start >= self.plan.steps:
            return
        progress = (
            Progress(label="training", total=self.plan.steps, unit="steps", done=start) if self.ranks.first else None
        )
        feed = Feed(self.preparer, self.plan, start=start, rank=self.ranks.rank, world_size=self.ranks.world_size)
        self.engine.deepspeed.train()
        with feed, garbage_on_demand():
            works = iter(feed)
            while self.state.step < self.plan.steps:
                waiting = time.monotonic()
                self.watchdog.mark(self.state.step + 1, "data")
                with self.clock.spend(Cause.DATA):
                    work = next(works)
                began = time.monotonic()
                with self.clock.spend(Cause.STEP):
                    figures, stopping = self._step(work, began, began - waiting)
                row = self.recorder.add(work.step + 1, figures)
                self._count(figures)
                if work.step % GARBAGE_STEPS == 0:
                    gc.collect()
                if row:
                    _send(curve, row)
                if progress:
                    progress.advance(note=_note(self.recorder.rows))
                if self.heartbeat:
                    self.heartbeat.beat(sum(self.clock.seconds().values()))
                self._save_if_due(stopping)

    def _step(self, work: Work, began: float, waited: float) -> tuple[StepFigures, bool]:
        """Train one optimizer step; returns its figures and whether any rank was asked to stop."""
        # Whatever a model draws at random depends on the step alone, so a resumed run draws the same.
        torch.manual_seed(((self.settings.seed << 40) + (work.step << 12) + self.ranks.rank) % 2**63)
        samples = len(work.samples)
        local = torch.zeros((), device=self.ranks.device)
        total, stops, problem, last = 0.0, 0.0, "", len(work.batches) - 1
        for index, packed in enumerate(work.batches):
            self.watchdog.mark(work.step + 1, f"micro-step {index + 1} of {last + 1}")
            batch = to_device(packed, self.ranks.device, self.engine.dtype)
            losses = sample_losses(self.family.forward(self.engine.deepspeed, batch), batch)
            share = share_of_step(losses, samples_of_step=samples, world_size=self.ranks.world_size)
            local += losses.detach().sum()
            if index == last:
                total, stops = self._over_ranks(local.item() / samples, float(self.stop.signal is not None))
                problem = self._judge(total, work)
            # DeepSpeed discards a step whose gradients are not finite, and clears up after it: make them so.
            self.engine.backward(share * math.nan if problem else share, last=index == last)
        rate = learning_rate(
            work.step, steps=self.plan.steps, peak=self.settings.learning_rate, schedule=self.settings.schedule
        )
        self.watchdog.mark(work.step + 1, "update")
        norm = self._update(rate, problem, work)
        figures = StepFigures(
            loss=total,
            learning_rate=rate,
            gradient_norm=norm,
            samples=samples,
            tokens=int(self.reader.tokens[work.samples].sum()),
            micro_steps=len(work.batches),
            idle=work.idle,
            seconds=time.monotonic() - began + waited,
            data_seconds=waited,
            taken=work.step + 1 not in self.guard.skipped,
        )
        return figures, stops > 0

    def _over_ranks(self, *values: float) -> list[float]:
        summed = torch.tensor(values, dtype=torch.float64, device=self.ranks.device)
        dist.all_reduce(summed)
        return [float(value) for value in summed.tolist()]

    def _judge(self, loss: float, work: Work) -> str:
        """What is wrong with the step's loss, where it may be left out for that; empty for a good one."""
        problem = self.guard.problem(loss)
        if not problem:
            self.guard.accept(loss)
            return ""
        problem = f"the loss {problem}"
        self._leave_out(problem, loss, work)
        return problem

    def _update(self, rate: float, problem: str, work: Work) -> float:
        """Take the step, or have DeepSpeed discard it; returns the gradient's norm, 0 where it was left out."""
        norm = self.engine.step(rate)
        # ZeRO-3 keeps the norm of the step before where it discards one: its own flag tells.
        discarded = bool(self.engine.deepspeed.optimizer.overflow) or not math.isfinite(norm)
        if discarded and not problem:
            self._leave_out("the gradient is not finite", math.nan, work)
        elif problem and not discarded:
            raise TrainingError(
                f"DeepSpeed took step {work.step + 1}, which was to be left out: {problem}.",
                remedy="This is a bug of this program: report the version of DeepSpeed.",
            )
        return 0.0 if discarded else norm

    def _leave_out(self, problem: str, loss: float, work: Work) -> None:
        ids = [self.reader.ids[position] for position in work.samples]
        self.guard.skip(work.step + 1, problem, ids)
        if self.ranks.first:
            row = {"step": work.step + 1, "reason": problem, "loss": repr(loss), "samples": ids}
            record_skipped(self.run.store, self.prefix, row)

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
        if not stopping and step % self.settings.checkpoint_every and step != self.plan.steps:
            return
        with self.clock.spend(Cause.SAVE):
            self.watchdog.pause()
            update = {
                "seconds": self.clock.seconds(),
                "window": dict(self.recorder.window),
                "recent_losses": tuple(self.guard.recent),
                "skipped": tuple(self.guard.skipped),
            }
            self.saver.save(self.engine.deepspeed, self.state.model_copy(update=update), self.recorder.rows)
            if stopping:
                self.saver.wait()
                dist.barrier()
        if stopping and step < self.plan.steps:
            raise StoppedError(
                f"Training was asked to stop and did so after step {step} of {self.plan.steps}; {folder_of(step)} is "
                "saved.",
                remedy="The same command goes on from there.",
            )

    def _leave_result(self) -> None:
        """Probe, model folder and metrics.jsonl; collective."""
        positions = range(min(PROBE_SAMPLES, len(self.reader)))
        packed = self.preparer.pack(self.preparer.prepare(positions))
        probe = probe_tensors(self.engine, self.family, packed, self.ranks.device)
        if self.ranks.first:
            leave_files(
                self.run.store,
                self.prefix,
                model=self.engine.deepspeed.module,
                save_processor=partial(self.family.save_processor, self.reader.tokenizer(), self.model_settings),
                probe=probe,
                rows=self.recorder.rows,
            )

    def _summary(self) -> dict[str, Number]:
        seconds = self.clock.seconds()
        looping = max(1e-9, sum(seconds[cause] for cause in (Cause.DATA, Cause.STEP, Cause.SAVE, Cause.OTHER)))
        return {
            "steps": self.state.step,
            "first_loss": self.recorder.rows[0]["loss"],
            "last_loss": self.recorder.rows[-1]["loss"],
            "samples": self.state.samples,
            "tokens": self.state.tokens,
            "samples_per_second": self.state.samples / looping,
            "tokens_per_second": self.state.tokens / looping,
            "goodput": self.clock.goodput(),
            "parameters": self.engine.parameters,
            "steps_skipped": len(self.guard.skipped),
            **{f"seconds_{cause}": value for cause, value in seconds.items()},
        }


@contextmanager
def garbage_on_demand() -> Iterator[None]:
    """Collect cycles only when asked to: Python's own collections walk every module's objects in mid-step."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _end_hanging(error: TrainingError) -> None:
    """End this process whatever its main thread waits for; torchrun then ends the others."""
    leave_failure(error)
    say(str(error))
    os._exit(1)


def _agreed_token(ranks: Ranks) -> str:
    token: list[Any] = [secrets.token_hex(4)]
    dist.broadcast_object_list(token, src=0, device=ranks.device)
    return str(token[0])


def _send(curve: CurveSender | None, row: Row) -> None:
    if curve:
        curve.add(int(row["step"]), {f"train/{name}": value for name, value in row.items() if name != "step"})


def _note(rows: list[Row]) -> str:
    return f"loss {rows[-1]['loss']:.3f}  {rows[-1]['samples_per_second']:,.0f} samples/s" if rows else ""
