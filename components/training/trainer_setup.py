"""Builds the trainer of one rank: opens the mixture, builds the model, restores the last checkpoint."""

import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor

from components.training.batching.data_loader import DataLoader, SampleProcessor
from components.training.batching.sample_plan import Budgets, Lengths, SamplePlan
from components.training.batching.training_plan import PlanRecord, training_plan
from components.training.callbacks.callback import Callback
from components.training.callbacks.callback_list import CallbackList
from components.training.callbacks.goodput_timer import GoodputTimer
from components.training.callbacks.held_out_loss import HeldOutLoss
from components.training.callbacks.loss_spikes import LossSpikeGuard, record_skipped
from components.training.callbacks.manual_gc import ManualGarbageCollection
from components.training.callbacks.metric_rows import MetricRows
from components.training.callbacks.mlflow_senders import MlflowCurve, NodeMetrics, PrometheusFigures
from components.training.callbacks.progress_bar import ProgressBar, ProgressFile
from components.training.callbacks.rank_checks import StragglerCheck, WatchdogFeed
from components.training.callbacks.step_trace import StepTrace
from components.training.callbacks.training_files import EngineFile, ResultFiles, SummaryFile
from components.training.checkpointing.export import compute_probe
from components.training.checkpointing.resume import restore
from components.training.checkpointing.saver import Saver, TrainingState
from components.training.engine.deepspeed_engine import DistributedContext, Engine, build_engine
from components.training.engine.flight_recorder import leave_dump
from components.training.held_out_evaluator import HeldOutEvaluator
from components.training.in_cluster.job_events import opened_events
from components.training.in_cluster.job_status import opened_status
from components.training.lr_schedule import learning_rate
from components.training.monitoring.failures import StalledError, leave_failure
from components.training.monitoring.goodput import Cause, GoodputClock, Heartbeat
from components.training.monitoring.profiling import Span, StepProfiler
from components.training.monitoring.running_trial import RunningTrial
from components.training.monitoring.signals import StopRequest
from components.training.monitoring.stragglers import Stragglers
from components.training.monitoring.training_metrics import TrainingMetrics, opened_metrics
from components.training.monitoring.watchdog import Watchdog, meeting_store
from components.training.sizing.flops import Flops, flops_of, peak_flops
from components.training.train_step import SampleTable, TrainStep
from components.training.trainer import Trainer
from mantis.artifacts.held_out import HELD_OUT_INDEX
from mantis.artifacts.manifest import Manifest
from mantis.config.recipe import Recipe
from mantis.dataset.mixture_reader import MixtureReader
from mantis.models import registry
from mantis.models.attention import kernel_name
from mantis.models.conversation import ImageSize
from mantis.models.family import Family, Processor
from mantis.models.weights.mirror import resolved
from mantis.runs.arms import parent_of
from mantis.runs.step_runner import Run
from mantis.runs.trials import read_trials
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

EVALUATED_TOGETHER = 32  # least held-out samples of a rank that are packed together: few leave gaps in the budget
DUMMY = ImageSize(width=1, height=1)  # pixels of the image that runs in a micro-step without images


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a rank opens and builds before it restores a checkpoint.

    Args:
        run: the run.
        mixture: the samples.
        prefix: key of the training's folder in the store.
        ranks: this rank among all.
        recipe: the recipe, with the model settings as resolved for this store.
        family: the model family.
        reader: the mixture.
        preparer: encodes and packs samples.
        plan: the samples of every step.
        engine: the model in training.
        flops: FLOP by kind of work.
    """

    run: Run
    mixture: Manifest
    prefix: str
    ranks: DistributedContext
    recipe: Recipe
    family: Family
    reader: MixtureReader
    preparer: SampleProcessor
    plan: SamplePlan
    engine: Engine
    flops: Flops


def build_trainer(
    run: Run,
    mixture: Manifest,
    ranks: DistributedContext,
    *,
    prefix: str,
    began: float,
    queued: float,
    profile: Span | None = None,
) -> Trainer:
    """The trainer of this rank, restored from the newest whole checkpoint if there is one; collective.

    Args:
        run: the run; its recipe says how to train.
        mixture: the samples.
        ranks: this rank among all.
        prefix: key of the training's folder in the store.
        began: the time.monotonic() at which this training was asked for.
        queued: seconds that it then spent in a queue.
        profile: steps to trace.

    Raises:
        TrainingError: there are checkpoints, but none is whole.
        IntegrityError: the checkpoint belongs to another model.
        ConfigError: MANTIS_METRICS_PORT is no port.
    """
    heartbeat = Heartbeat(run.store, prefix) if ranks.is_main else None
    if heartbeat:
        began, queued = heartbeat.queued_once(began, queued)
    clock = GoodputClock(began)
    metrics = opened_metrics(run.id) if ranks.is_main else None
    parts = _open_parts(run, mixture, ranks, prefix)
    training = parts.recipe.training
    guard = LossSpikeGuard(
        spike=training.loss_spike_factor,
        skips=training.max_skipped_steps,
        ledger=partial(record_skipped, run.store, prefix) if ranks.is_main else None,
    )
    held_out = _held_out(parts) if training.evaluate_every else None
    goodput = GoodputTimer(clock, heartbeat, devices=ranks.world_size)
    callbacks = _callbacks(parts, guard, goodput, profile, held_out, metrics)
    saver = _saver(parts, callbacks)
    train_step = _train_step(parts, guard, callbacks, saver)
    clock.add(Cause.QUEUE, queued)
    clock.add(Cause.START, time.monotonic() - began - queued)
    with clock.spend(Cause.RESUME):
        state = _restored(parts)
    feed = DataLoader(
        parts.preparer,
        parts.plan,
        start=state.step,
        rank=ranks.rank,
        world_size=ranks.world_size,
        threads=training.data_workers,
    )
    return Trainer(
        engine=parts.engine,
        train_step=train_step,
        feed=feed,
        saver=saver,
        callbacks=callbacks,
        state=state,
        steps=parts.plan.steps,
        save_every=training.checkpoint_every,
        held_out=held_out,
    )


def _callbacks(
    parts: Parts,
    guard: LossSpikeGuard,
    goodput: GoodputTimer,
    profile: Span | None,
    held_out: HeldOutLoss | None,
    metrics: TrainingMetrics | None,
) -> CallbackList:
    """All callbacks of this rank. Those that send or store something at the end come before `SummaryFile`."""
    run, ranks, store, prefix = parts.run, parts.ranks, parts.run.store, parts.prefix
    rows = _metric_rows(parts)
    everywhere: list[Callback] = [
        guard,
        StepTrace(StepProfiler(store, prefix, profile, rank=ranks.rank)),
        ManualGarbageCollection(),
        StragglerCheck(Stragglers(ranks)),
        _result_files(parts, rows),
    ]
    bar = ProgressBar(rows)
    first: list[Callback] = [
        _engine_file(parts),
        bar,
        ProgressFile(store, prefix, rows, bar),
        MlflowCurve(run, rows, parts.mixture),
    ]
    every_checkpoint = parts.recipe.training.checkpoint_every
    read = [PrometheusFigures(metrics, rows, goodput, checkpoint_every=every_checkpoint)] if metrics else []
    of_node: list[Callback] = [NodeMetrics(run)]
    last: list[Callback] = [
        _summary_file(parts, rows, guard, goodput, held_out),
        goodput,
        WatchdogFeed(_watchdog(parts)),
    ]
    main = [*first, *_reports(rows, bar)] if ranks.is_main else []
    every = [*everywhere, *main, *read, *(of_node if ranks.local_rank == 0 else []), *last]
    return CallbackList(rows, [*every, *([held_out] if held_out else [])])


def _reports(rows: MetricRows, bar: ProgressBar) -> list[Callback]:
    """What the first rank tells its cluster; empty where the cluster does not ask for it."""
    return [each for each in (opened_status(rows, bar), opened_events()) if each]


def _open_parts(run: Run, mixture: Manifest, ranks: DistributedContext, prefix: str) -> Parts:
    recipe = run.recipe.model_copy(update={"model": resolved(run.store, run.recipe.model)})
    training = recipe.training
    registry.check_parts(recipe)
    registry.check_image(recipe)
    family = registry.family(recipe.model.family)
    reader = MixtureReader(run.store, mixture, cache_gb=recipe.data.cache_gb)
    processor = family.processor(reader.tokenizer(), recipe.model)
    preparer = SampleProcessor(reader, processor)
    model = family.build(processor, seed=recipe.seed)
    flops = flops_of(model, family, training)
    plan = training_plan(reader, training, flops.cost_model())
    return Parts(
        run=run,
        mixture=mixture,
        prefix=prefix,
        ranks=ranks,
        recipe=recipe,
        family=family,
        reader=reader,
        preparer=preparer,
        plan=plan,
        engine=build_engine(model, family, training),
        flops=flops,
    )


def _held_out(parts: Parts) -> HeldOutLoss:
    """The callback that evaluates."""
    run, ranks, training = parts.run, parts.ranks, parts.recipe.training
    reader = MixtureReader(run.store, parts.mixture, cache_gb=parts.recipe.data.cache_gb, index_name=HELD_OUT_INDEX)
    plan = SamplePlan(
        Lengths(tokens=reader.tokens.astype("int64"), patches=reader.patches.astype("int64")),
        seed=0,
        batch_size=max(training.global_batch_size, EVALUATED_TOGETHER * ranks.world_size),
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=training.token_budget, patches=training.patch_budget),
        cost=parts.flops.cost_model(),
    )
    evaluator = HeldOutEvaluator(
        engine=parts.engine,
        family=parts.family,
        ranks=ranks,
        preparer=SampleProcessor(reader, parts.preparer.processor),
        plan=plan,
        threads=training.data_workers,
    )
    return HeldOutLoss(
        evaluator=evaluator,
        every=training.evaluate_every or parts.plan.steps,
        keeps_best=training.keep_best,
        patience=training.patience,
        probe=_probe(parts),
        is_main=ranks.is_main,
        trial=_trial(parts),
    )


def _trial(parts: Parts) -> RunningTrial | None:
    """The trial that this training is; None if it is none of a sweep that searches."""
    store, run = parts.run.store, parts.run.id
    sweep = parent_of(store, run)
    if not sweep or not read_trials(store, sweep):
        return None
    return RunningTrial(store=store, run=run, sweep=sweep, ranks=parts.ranks)


def _probe(parts: Parts) -> Callable[[], dict[str, Tensor]]:
    return partial(
        compute_probe, parts.engine, parts.family, parts.preparer, parts.ranks.device, samples=len(parts.reader)
    )


def _restored(parts: Parts) -> TrainingState:
    """The state of the newest whole checkpoint, loaded into the engine; the state of step 0 if there is none."""
    training = parts.recipe.training
    state = restore(
        parts.engine.deepspeed,
        parts.run.store,
        parts.prefix,
        parts.ranks,
        zero_stage=training.zero_stage,
        groups=parts.engine.groups,
        frozen=training.adapter is None,
    )
    return state or TrainingState(step=0, seed=training.seed, groups=parts.engine.groups)


def _train_step(parts: Parts, guard: LossSpikeGuard, callbacks: CallbackList, saver: Saver) -> TrainStep:
    training = parts.recipe.training
    return TrainStep(
        engine=parts.engine,
        family=parts.family,
        ranks=parts.ranks,
        table=_sample_table(parts.reader, parts.flops, parts.preparer.processor),
        guard=guard,
        stop=StopRequest(),
        learning_rate=partial(
            learning_rate, steps=parts.plan.steps, peak=training.learning_rate, schedule=training.schedule
        ),
        seed=training.seed,
        announce=callbacks.on_phase,
        before_update=saver.wait_until_copied,
        rates_by_part=bool(training.parts),
    )


def _sample_table(reader: MixtureReader, flops: Flops, processor: Processor) -> SampleTable:
    return SampleTable(
        ids=reader.ids,
        tokens=reader.tokens,
        patches=reader.patches,
        flops=flops(tokens=reader.tokens, targets=reader.targets, patches=reader.patches, images=reader.images),
        dummy_tokens=processor.image_tokens(DUMMY),
        dummy_patches=processor.image_patches(DUMMY),
    )


def _saver(parts: Parts, callbacks: CallbackList) -> Saver:
    training = parts.recipe.training
    return Saver(
        parts.run.store,
        parts.prefix,
        rank=parts.ranks.rank,
        world_size=parts.ranks.world_size,
        zero_stage=training.zero_stage,
        attempt=_agreed_token(parts.ranks),
        keep=training.keep_last,
        keep_every=training.keep_every,
        frozen=training.adapter is None,
        on_commit=callbacks.on_commit if parts.ranks.is_main else None,
    )


def _agreed_token(ranks: DistributedContext) -> str:
    """A random name of this attempt, the same on every rank; collective."""
    token: list[Any] = [secrets.token_hex(4)]
    dist.broadcast_object_list(token, src=0, device=ranks.device)
    return str(token[0])


def _metric_rows(parts: Parts) -> MetricRows:
    return MetricRows(
        every=parts.recipe.training.log_every,
        evaluate_every=parts.recipe.training.evaluate_every,
        steps=parts.plan.steps,
        peak_flops=_peak_of_all(parts.engine, parts.ranks),
        device=parts.ranks.device,
    )


def _peak_of_all(engine: Engine, ranks: DistributedContext) -> float | None:
    """FLOP/s of all ranks' devices together; None if one of them is unknown. Collective."""
    own = peak_flops(ranks.device, engine.dtype)
    known, total = ranks.all_reduce_sum(float(own is not None), own or 0.0)
    return total if known == ranks.world_size else None


def _engine_file(parts: Parts) -> EngineFile:
    cost = parts.flops.cost_model()
    record = PlanRecord(quadratic=cost.quadratic, patch=cost.patch, world_size=parts.ranks.world_size)
    return EngineFile(
        store=parts.run.store, prefix=parts.prefix, engine=parts.engine, plan=record, headline=_headline(parts)
    )


def _headline(parts: Parts) -> str:
    training, plan = parts.recipe.training, parts.plan
    return (
        f"{plan.steps:,} steps of {training.global_batch_size} samples, {plan.per_epoch:,} samples per epoch, "
        f"{parts.engine.parameters:,} parameters, ZeRO-{training.zero_stage} on {parts.ranks.world_size} ranks, "
        f"attention: {kernel_name(parts.ranks.device, parts.engine.dtype)}"
    )


def _result_files(parts: Parts, rows: MetricRows) -> ResultFiles:
    return ResultFiles(
        store=parts.run.store,
        prefix=parts.prefix,
        recipe=parts.recipe,
        ranks=parts.ranks,
        family=parts.family,
        engine=parts.engine,
        processor=parts.preparer.processor,
        probe=_probe(parts),
        rows=rows,
    )


def _summary_file(
    parts: Parts, rows: MetricRows, guard: LossSpikeGuard, goodput: GoodputTimer, held_out: HeldOutLoss | None
) -> SummaryFile:
    return SummaryFile(
        store=parts.run.store,
        prefix=parts.prefix,
        ranks=parts.ranks,
        parameters=parts.engine.parameters,
        rows=rows,
        guard=guard,
        goodput=goodput,
        held_out=held_out,
        attention=kernel_name(parts.ranks.device, parts.engine.dtype),
    )


def _watchdog(parts: Parts) -> Watchdog:
    return Watchdog(
        meeting_store(),
        rank=parts.ranks.rank,
        world_size=parts.ranks.world_size,
        seconds=parts.recipe.training.hang_timeout_seconds,
        end=partial(_end_hanging, parts.run.store, parts.prefix, parts.ranks),
    )


def _end_hanging(store: ObjectStore, prefix: str, ranks: DistributedContext, error: StalledError) -> None:
    """End this process, whatever its main thread waits for; torchrun then ends the others."""
    dump = leave_dump(store, prefix, rank=ranks.rank, device=ranks.device)
    said = StalledError(
        error.problem, remedy=f"{error.remedy} The last collectives of rank {ranks.rank} are in {dump}."
    )
    leave_failure(said)
    logger.error("%s", said)
    os._exit(1)
