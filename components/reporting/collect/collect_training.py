"""Collect the figures and curves of training from its checkpoint."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from components.reporting.collect.artifact_reader import Reader
from components.reporting.collect.report_schema import BestStep, Curve, Straggler, Training, TrainingSetup
from mantis.artifacts.manifest import Manifest, Number
from mantis.config.recipe import Recipe

CURVES = {  # title and unit
    "loss": ("Loss", "nats"),
    "held_out_loss": ("Held-out loss", "nats"),
    "learning_rate": ("Learning rate", "rate"),
    "gradient_norm": ("Gradient norm", "norm"),
    "samples_per_second": ("Samples per second", "samples/s"),
    "mfu": ("Model FLOPs utilization", "share of peak"),
}
LOSSES = ("loss", "held_out_loss")
PART_RATE = "learning_rate_"  # prefix of the columns with the learning rate of a part
OPTIONAL_CURVES = ("held_out_loss",)  # a recipe may ask for none
CAUSE = "seconds_"  # prefix of the summary's fields that hold seconds by cause


def training_of(reader: Reader, checkpoint: Manifest, recipe: Recipe) -> Training:
    """Return summary figures and curves of `checkpoint`. A missing figure becomes a note, and None."""
    summary = checkpoint.summary
    rows = reader.json_lines(checkpoint, "metrics.jsonl")

    def number(name: str) -> float | None:
        value = summary.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return value
        reader.note(f"{checkpoint.key} does not state its {name}.")
        return None

    def count(name: str) -> int | None:
        value = number(name)
        return None if value is None else int(value)

    return Training(
        steps=count("steps"),
        samples=count("samples"),
        tokens=count("tokens"),
        parameters=count("parameters"),
        first_loss=number("first_loss"),
        last_loss=number("last_loss"),
        samples_per_second=number("samples_per_second"),
        goodput=number("goodput"),
        setup=_setup(summary, recipe),
        best=_best(summary),
        seconds={
            name.removeprefix(CAUSE): float(value)
            for name, value in summary.items()
            if name.startswith(CAUSE) and isinstance(value, int | float)
        },
        straggler=_straggler(rows),
        attention=str(summary.get("attention", "")),
        curves=_curves(reader, checkpoint, rows),
    )


def _setup(summary: Mapping[str, Number], recipe: Recipe) -> TrainingSetup:
    """Hardware and software from the checkpoint, settings from the recipe. An older checkpoint lacks the former."""

    def whole(name: str) -> int | None:
        value = summary.get(name)
        return value if isinstance(value, int) else None

    def words(name: str) -> str | None:
        value = summary.get(name)
        return value if isinstance(value, str) else None

    hours, training = summary.get("device_hours"), recipe.training
    schedule = f"{training.schedule.kind}, warm-up over {training.schedule.warmup_ratio:.0%} of the steps"
    settings = {
        "Model": f"{recipe.model.family} from {recipe.model.base}",
        "Precision": training.precision,
        "Trained": ", ".join(training.train) + (f", by {training.adapter.kind}" if training.adapter else ""),
        "Batch size": f"{training.global_batch_size:,} samples per step, over all ranks",
        "Learning rate": f"{training.learning_rate:g}, {schedule}",
        "Weight decay": f"{training.weight_decay:g}",
        "Epochs": f"{training.epochs:,}",
    }
    return TrainingSetup(
        hardware=words("hardware"),
        ranks=whole("ranks"),
        nodes=whole("nodes"),
        gpus=whole("gpus"),
        software=words("software"),
        device_hours=float(hours) if isinstance(hours, int | float) else None,
        price=recipe.cluster.gpu_hour_price,
        settings=tuple(settings.items()),
    )


def _best(summary: Mapping[str, Number]) -> BestStep | None:
    """The best step by the held-out loss; None if the training computed none."""
    if "best_step" not in summary:
        return None
    return BestStep(
        step=int(summary["best_step"]),
        loss=float(summary["best_held_out_loss"]),
        last_loss=float(summary["last_held_out_loss"]),
        samples=int(summary["held_out_samples"]),
        stopped_early=bool(summary["stopped_early"]),
    )


def _straggler(rows: Sequence[dict[str, Any]]) -> Straggler | None:
    """Return the slowest rank; None for a single rank, which has nothing to be compared with."""
    looks = [(int(row["slowest_rank"]), float(row["slowdown"])) for row in rows if "slowdown" in row]
    if not looks:
        return None
    (rank, _), *_ = Counter(rank for rank, _ in looks).most_common()
    return Straggler(rank=rank, slowdown=statistics.median(slowdown for other, slowdown in looks if other == rank))


def _curves(reader: Reader, checkpoint: Manifest, rows: Sequence[dict[str, Any]]) -> tuple[Curve, ...]:
    curves = []
    parts = dict.fromkeys(name for row in rows for name in row if name.startswith(PART_RATE))
    of_parts = {name: (f"Learning rate of {name.removeprefix(PART_RATE)}", "rate") for name in parts}
    for name, (title, unit) in (CURVES | of_parts).items():
        points = _points(rows, name)
        if name in OPTIONAL_CURVES and not points:
            continue
        if rows and not points:
            reader.note(f"{checkpoint.key}/metrics.jsonl has no {name}.")
        curves.append(Curve(name=name, title=title, unit=unit, points=points))
    return tuple(curves)


def loss_curves(reader: Reader, checkpoint: Manifest) -> tuple[Curve, ...]:
    """Return the losses of a training over its steps, for a comparison with others."""
    rows = reader.json_lines(checkpoint, "metrics.jsonl")
    return tuple(
        Curve(name=name, title=CURVES[name][0], unit=CURVES[name][1], points=_points(rows, name)) for name in LOSSES
    )


def _points(rows: Sequence[dict[str, Any]], name: str) -> tuple[tuple[float, float], ...]:
    return tuple(
        (float(row["step"]), float(row[name]))
        for row in rows
        if "step" in row and isinstance(row.get(name), int | float) and math.isfinite(row[name])
    )
