"""The training loop of one rank."""

import gc
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from components.core.artifacts import Manifest, Number
from components.core.errors import TrainingError
from components.core.progress import Progress, say
from components.core.steps import Run
from components.core.tracking import CurveSender
from components.models import registry
from components.models.mirrors import resolved
from components.models.mixture import MixtureReader
from components.training.accounting import Beat, Cause, Clock, Heartbeat
from components.training.checkpoint import LoopState, Saver, folder_of
from components.training.engine import Ranks, build_engine
from components.training.engine_options import as_text
from components.training.failures import leave_failure
from components.training.feed import Feed, Preparer
from components.training.finish import PROBE_SAMPLES, leave_files, probe_tensors
from components.training.flops import flops_of, peak_flops
from components.training.guard import Guard
from components.training.metrics import Recorder, Row, StepFigures
from components.training.plan import Budgets, Lengths, Plan
from components.training.profiling import Span, StepProfiler
from components.training.resume import restore
from components.training.signals import StoppedError, StopRequest
from components.training.stepping import Stepper
from components.training.stragglers import Stragglers
from components.training.summary import write_summary
from components.training.system_metrics import SystemMetrics
from components.training.watchdog import Watchdog, meeting_store

ENGINE = "engine.json"
GARBAGE_STEPS = 50


class Loop:
    """Trains `run` on `mixture` and leaves the result under `prefix`; the same calls are made on every rank."""

    def __init__(
        self,
        run: Run,
        mixture: Manifest,
        prefix: str,
        ranks: Ranks,
        *,
        began: float,
        queued: float,
        profile: Span | None = None,
    ) -> None:
        recipe = run.recipe
        self.run, self.prefix, self.ranks = run, prefix, ranks
        self.settings, self.model_settings = recipe.training, resolved(run.store, recipe.model)
        self.heartbeat = Heartbeat(run.store, prefix) if ranks.first else None
        if self.heartbeat:
            began, queued = self.heartbeat.queued_once(began, queued)
        self.clock = Clock(began)
        self.family = registry.family(recipe.model.family)
        self.reader = MixtureReader(run.store, mixture, cache_gb=recipe.data.cache_gb)
        self.preparer = Preparer(self.reader, self.family, self.model_settings)
        model = self.family.build(self.reader.tokenizer(), self.model_settings, seed=recipe.seed)
        flops = flops_of(model, self.family, self.settings)
        self.plan = Plan(
            Lengths(tokens=self.reader.tokens.astype("int64"), patches=self.reader.patches.astype("int64")),
            seed=self.settings.seed,
            batch_size=self.settings.global_batch_size,
            epochs=self.settings.epochs,
            max_steps=self.settings.max_steps,
            budgets=Budgets(tokens=self.settings.token_budget, patches=self.settings.patch_budget),
            cost=flops.cost_model(),
        )
        self.engine = build_engine(model, self.family, self.settings)
        self.recorder = Recorder(
            every=self.settings.log_every,
            steps=self.plan.steps,
            peak_flops=self._peak_of_all(),
            device=ranks.device,
        )
        self.stragglers = Stragglers(ranks)
        self.profiler = StepProfiler(run.store, prefix, profile, rank=ranks.rank)
        self.state = LoopState(step=0, seed=self.settings.seed)
        self.saver = Saver(
            run.store,
            prefix,
            rank=ranks.rank,
            world_size=ranks.world_size,
            zero_stage=self.settings.zero_stage,
            attempt=_agreed_token(ranks),
            keep=self.settings.keep_last,
            keep_every=self.settings.keep_every,
            frozen=self.settings.adapter is None,
        )
        self.guard = Guard(spike=self.settings.loss_spike_factor, skips=self.settings.max_skipped_steps)
        self.watchdog = Watchdog(
            meeting_store(),
            rank=ranks.rank,
            world_size=ranks.world_size,
            seconds=self.settings.hang_timeout_seconds,
            end=_end_hanging,
        )
        self.stepper = Stepper(
            store=run.store,
            prefix=prefix,
            ranks=ranks,
            settings=self.settings,
            model=self.model_settings,
            family=self.family,
            reader=self.reader,
            engine=self.engine,
            guard=self.guard,
            watchdog=self.watchdog,
            stop=StopRequest(),
            flops=flops(
                tokens=self.reader.tokens,
                targets=self.reader.targets,
                patches=self.reader.patches,
                images=self.reader.images,
            ),
            steps=self.plan.steps,
        )
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
        system = SystemMetrics(self.run) if self.ranks.local == 0 else None
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
            if system:
                system.close()
            dist.barrier()
        if self.heartbeat:
            write_summary(self.run.store, self.prefix, self._summary())
            self.heartbeat.close()
        self.watchdog.close()

    def _resume(self) -> None:
        resumed = restore(
            self.engine.deepspeed,
            self.run.store,
            self.prefix,
            self.ranks,
            zero_stage=self.settings.zero_stage,
            frozen=self.settings.adapter is None,
        )
        if resumed:
            self.state = resumed.state
            self.recorder.rows, self.recorder.window = resumed.rows, dict(resumed.state.window)
            self.guard.resume(self.state.recent_losses, self.state.skipped)
        before = self.heartbeat.last if self.heartbeat else Beat()
        self.clock.inherit(self.state.seconds, ran=before.seconds, queued=before.queued)
        if self.heartbeat:
            self.heartbeat.beat(self.clock.seconds())
        if self.ranks.first:
            say(
                f"{self.plan.steps:,} steps of {self.settings.global_batch_size} samples, {self.plan.per_epoch:,} "
                f"samples per epoch, {self.engine.parameters:,} parameters, ZeRO-{self.settings.zero_stage} on "
                f"{self.ranks.world_size} ranks; DeepSpeed with\n{as_text(self.engine.options)}"
            )
            options = [option.to_json() for option in self.engine.options]
            self.run.store.put(f"{self.prefix}/{ENGINE}", json.dumps(options, indent=1).encode())

    def _steps(self, curve: CurveSender | None) -> None:
        start = self.state.step
        if start >= self.plan.steps:
            return
        progress = (
            Progress(label="training", total=self.plan.steps, unit="steps", done=start) if self.ranks.first else None
        )
        feed = Feed(
            self.preparer,
            self.plan,
            start=start,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            threads=self.settings.data_workers,
        )
        self.engine.deepspeed.train()
        with feed, garbage_on_demand():
            works = iter(feed)
            while self.state.step < self.plan.steps:
                waiting = time.monotonic()
                self.watchdog.mark(self.state.step + 1, "data")
                with self.clock.spend(Cause.DATA):
                    work = next(works)
                waited = time.monotonic() - waiting
                with self.clock.spend(Cause.STEP), self.profiler.step(work.step + 1):
                    figures, stopping = self.stepper.take(work, waited=waited)
                row = self.recorder.add(work.step + 1, figures)
                self._count(figures)
                if work.step % GARBAGE_STEPS == 0:
                    gc.collect()
                if row:
                    row.update(self.stragglers.look(row))
                    _send(curve, row)
                if progress:
                    progress.advance(note=_note(self.recorder.rows))
                if self.heartbeat:
                    self.heartbeat.beat(self.clock.seconds())
                self._save_if_due(stopping)

    def _peak_of_all(self) -> float | None:
        """FLOP/s of all ranks' devices; None where one of them is not known."""
        own = peak_flops(self.ranks.device, self.engine.dtype)
        known, total = self.ranks.add_up(float(own is not None), own or 0.0)
        return total if known == self.ranks.world_size else None

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
                recipe=self.run.recipe.model_copy(update={"model": self.model_settings}),
                engine=self.engine,
                family=self.family,
                tokenizer=self.reader.tokenizer(),
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
