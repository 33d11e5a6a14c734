"""Define a benchmark row, and list the module that measures each row."""

import operator
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Row name -> module and function that measure it. A module is imported only when its row is requested.
ROWS = {
    "data.decode": ("benchmarks.data", "decode"),
    "data.tokenize": ("benchmarks.data", "tokenize"),
    "data.prepare": ("benchmarks.data_prepare", "prepare_subset"),
    **{
        f"data.read.{form}": ("benchmarks.data_forms", form.replace("-", "_"))
        for form in (
            *("json-lines", "json-object", "parquet", "parquet-small-groups", "parquet-dictionaries"),
            *("arrow", "webdataset"),
            *("messages", "query", "instruction", "texts", "completion"),
        )
    },
    "data.random_read": ("benchmarks.data_read", "random_read"),
    "data.full": ("benchmarks.data_full", "full_table"),
    "data.plan": ("benchmarks.data_plan", "plan"),
    "training.plan": ("benchmarks.training_plan", "plan"),
    "training.step": ("benchmarks.training_step", "step"),
    "training.step.qwen3-vl": ("benchmarks.training_step", "any_size"),
    "training.evaluate": ("benchmarks.training_evaluate", "evaluate"),
    "training.trainer": ("benchmarks.training_trainer", "trainer"),
    "training.feed": ("benchmarks.training_feed", "feed"),
    "training.start": ("benchmarks.training_start", "start"),
    "training.parts": ("benchmarks.training_parts", "parts"),
    "training.save": ("benchmarks.training_save", "save"),
    "conversion.zero": ("benchmarks.conversion", "zero"),
    "conversion.merge": ("benchmarks.conversion_merge", "merge"),
    "conversion.store": ("benchmarks.conversion_store", "store"),
    "evaluation.generate": ("benchmarks.evaluation", "generate"),
    "evaluation.generate_chat": ("benchmarks.evaluation_chat", "generate_chat"),
    "evaluation.rescore": ("benchmarks.rescoring", "rescore"),
    "serving.concurrency": ("benchmarks.serving", "concurrency"),
    "serving.transformers": ("benchmarks.serving", "transformers"),
}

# These rows need CUDA, so they run only when named.
GPU_ROWS = {
    "gpu.attention": ("benchmarks.gpu_attention", "attention"),
    "gpu.attention_kernels": ("benchmarks.gpu_attention", "kernels"),
    "gpu.step": ("benchmarks.gpu_step", "step"),
}

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
GOAL = re.compile(r"(>=|<=|>|<)\s*([0-9.e+-]+)")

Measure = Callable[[bool], "Row"]  # its argument `full` selects the size of the stated goal instead of a quick one


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement. `peer` and `ours` are medians in `unit`. `goal` is a condition on `ratio`, e.g. `>=2.5`."""

    name: str
    peer: float | None
    ours: float
    ratio: float
    unit: str
    goal: str
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_rates(
        cls, name: str, samples: int, seconds: Mapping[str, Sequence[float]], goal: str, details: dict[str, Any]
    ) -> "Row":
        """Samples per second of `peer` and `ours` at the median of their times, and the ratio of the two."""
        rates = {who: samples / statistics.median(times) for who, times in seconds.items()}
        ratio = rates["ours"] / rates["peer"]
        return cls(
            name=name,
            peer=rates["peer"],
            ours=rates["ours"],
            ratio=ratio,
            unit="samples/s",
            goal=goal,
            details=details | {"seconds": seconds, "met": meets(ratio, goal)},
        )

    @property
    def met(self) -> bool:
        """Whether the ratio meets the goal."""
        return meets(self.ratio, self.goal)

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        return {
            "name": self.name,
            "peer": self.peer,
            "ours": self.ours,
            "ratio": self.ratio,
            "unit": self.unit,
            "goal": self.goal,
            "met": self.met,
            "details": self.details,
        }


def meets(value: float, goal: str) -> bool:
    """Whether `value` satisfies a comparison such as `>=2.5`.

    Raises:
        ValueError: the goal is not a comparison with a number.
    """
    match = GOAL.fullmatch(goal)
    if match is None:
        raise ValueError(f"goal {goal!r} is not a comparison with a number")
    return COMPARISONS[match[1]](value, float(match[2]))
