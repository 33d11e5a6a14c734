"""Run one rank of `training.trainer`: `torchrun -m benchmarks.training_trainer_ranks FILE FULL`."""

import copy
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from benchmarks.training_step_ranks import BATCH, KIND, SETUPS, TRAINING, Case, make_case, timed, train
from components.training.engine.deepspeed_config import as_config, deepspeed_options
from components.training.engine.deepspeed_engine import DistributedContext, build_engine, join_ranks, leave_ranks
from mantis.logging import configure

logger = logging.getLogger(__name__)

BATCH_SIZES = (1, 4, 16)  # per rank
STEPS = {False: 2, True: 5}


def main(out: str, full: str) -> None:
    """Measure both styles, and write the figures."""
    configure()
    ranks = join_ranks()
    # Build all models first: after a Trainer has run, transformers partitions every new model for ZeRO-3.
    cases = {style.name: make_case(style, setup, ranks) for style, setup in SETUPS.items()}
    figures = {name: measure(case, ranks, STEPS[bool(int(full))]) for name, case in cases.items()}
    if ranks.is_main:
        Path(out).write_text(json.dumps(figures))
    leave_ranks()


def measure(case: Case, ranks: DistributedContext, steps: int) -> dict[str, Any]:
    """Measure samples per second of the Trainer at several batch sizes, then of ours."""
    peers = {size: BATCH / through_trainer(case, size, ranks, steps) for size in BATCH_SIZES}
    engine = build_engine(case.model, KIND, TRAINING)
    seconds = [timed(lambda: train(engine, case.packed, ranks)) for _ in range(steps + 1)]
    ours = BATCH / statistics.median(seconds[1:])
    best = max(peers.values())
    widths = [len(sample.encoding.input_ids) for sample in case.samples]
    return {
        "peer": best,
        "ours": ours,
        "ratio": ours / best,
        "peer_by_batch_size": peers,
        "mean_over_longest": sum(widths) / len(widths) / max(widths),
    }


def through_trainer(case: Case, size: int, ranks: DistributedContext, steps: int) -> float:
    """Return the median seconds of an optimizer step of 128 samples, `size` at a time on each rank."""
    model = copy.deepcopy(case.model)
    model.set_attn_implementation("sdpa")
    accumulated = BATCH // (size * ranks.world_size)
    options = as_config(deepspeed_options(TRAINING, parameters=model.num_parameters(), cuda=False))
    options |= {"train_micro_batch_size_per_gpu": size, "gradient_accumulation_steps": accumulated}
    options["train_batch_size"] = BATCH
    clock = Clock(ranks.is_main, f"Trainer, batch {size}")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            max_steps=steps + 1,
            learning_rate=0.0,
            max_grad_norm=TRAINING.max_grad_norm,
            deepspeed=options,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            train_sampling_strategy="group_by_length",
        )
        Trainer(
            model, arguments, train_dataset=rows(case), data_collator=Collator(case.tokenizer), callbacks=[clock]
        ).train()
    return statistics.median(clock.seconds[1:])


def rows(case: Case) -> list[dict[str, Any]]:
    """Return the samples in the form of the Trainer."""
    edge = case.model.config.vision_config.image_size
    images = case.epoch.images.tolist()
    return [
        {
            "input_ids": sample.encoding.input_ids,
            "labels": sample.encoding.labels,
            "pixel_values": torch.randn(count, 3, edge, edge),
        }
        for sample, count in zip(case.samples, images, strict=True)
    ]


class Collator(DataCollatorForSeq2Seq):
    """Pads text like its base class, and concatenates images."""

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        text = [{name: row[name] for name in ("input_ids", "labels")} for row in features]
        batch: dict[str, Any] = dict(super().__call__(text, return_tensors))
        return batch | {"pixel_values": torch.cat([row["pixel_values"] for row in features])}


class Clock(TrainerCallback):
    """Measures the seconds of every optimizer step on this rank."""

    def __init__(self, first: bool, label: str) -> None:
        self.seconds: list[float] = []
        self._first, self._label, self._began = first, label, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)
        if self._first:
            logger.info("%s: step %d, %.1f s", self._label, len(self.seconds), self.seconds[-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
