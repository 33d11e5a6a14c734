"""Scores a response against its target. The score depends on nothing else.

Every response is scored in two ways:
- `official` follows the published implementation with its weaknesses. Published figures were measured with it.
- `strict` requires the answer itself: exactly one option at the place of the answer. Of several answers, the last one
  counts.

Some metrics have variants: another published reading of the official rule, by name.

A response of more than LIMIT characters (response_text.py) is cut first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Literal

from components.evaluation.scoring.metrics.metric_result import MetricResult
from components.evaluation.scoring.response_text import cut
from components.evaluation.scoring.targets import CHOICES, Target
from mantis.artifacts.responses import CORRECT
from mantis.errors import EvaluationError

Scoring = Literal["official", "strict"]
Rule = Callable[[str, Target], MetricResult]
Variant = Callable[[str, Target, MetricResult], MetricResult]  # the third argument is the official result


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A module in metrics/, the name of its official function, and those of its variants by their shown names."""

    module: str
    official: str = "official"
    variants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The functions of a metric."""

    official: Rule
    strict: Rule
    variants: Mapping[str, Variant]


METRICS = {
    "mantis": Metric(module="mantis"),
    "mvbench": Metric(module="mvbench"),
    "blink": Metric(module="blink"),
    "blink-lmms-eval": Metric(module="blink", official="lmms_eval"),
    "mmmu": Metric(module="mmmu", variants={"random guess": "random_guess"}),
    "mmbench": Metric(module="mmbench"),
    "scienceqa": Metric(module="scienceqa", variants={"random guess": "random_guess"}),
    "mathvista": Metric(module="mathvista"),
    "mirb": Metric(module="mirb"),
    "mementos": Metric(module="mementos"),
    "vqa": Metric(module="vqa", variants={"literal": "literal"}),
    "vqa-evalai": Metric(module="vqa", official="official_evalai"),
    "text-overlap": Metric(module="text_overlap"),
    "llava-interleave": Metric(module="multi_image.llava_interleave"),
    "mmmu-pro": Metric(module="multi_image.mmmu_pro"),
    "seed-bench-2": Metric(module="multi_image.seed_bench"),
    "video-mme": Metric(module="multi_image.video_mme"),
    "vlm2-bench": Metric(module="multi_image.vlm2_bench"),
}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The scores of a response, from 0 to 1, and the answers that they belong to; None where nothing was parsed.

    `variants` holds the score of each variant of the metric. `cut` says whether the response was too long. A text
    that is none of a sample's options is not parsed.
    """

    official: float
    strict: float
    parsed_official: str | None
    parsed: str | None
    variants: Mapping[str, float]
    cut: bool

    def score(self, scoring: Scoring) -> float:
        """The score by the named way of scoring."""
        return self.official if scoring == "official" else self.strict

    def answer(self, scoring: Scoring) -> str | None:
        """The answer that the named way of scoring found."""
        return self.parsed_official if scoring == "official" else self.parsed

    def stored(self, scoring: Scoring) -> dict[str, Any]:
        """The fields of a `Response` that depend on its score, with `scoring` as the headline."""
        score = self.score(scoring)
        return {
            "official": self.official,
            "strict": self.strict,
            "score": score,
            "correct": score >= CORRECT,
            "parsed": self.answer(scoring) is not None,
            "variants": dict(self.variants),
            "cut": self.cut,
        }


def score_response(response: str, target: Target, metric: str) -> Judgement:
    """Score a response in both ways.

    Raises:
        EvaluationError: the metric does not exist.
    """
    functions = rules(metric)
    text = cut(response)
    official, strict = functions.official(text, target), functions.strict(text, target)
    return Judgement(
        official=official.score,
        strict=strict.score,
        parsed_official=official.parsed if official.score or _is_option(official.parsed, target) else None,
        parsed=strict.parsed,
        variants={name: rule(text, target, official).score for name, rule in functions.variants.items()},
        cut=text is not response,
    )


def _is_option(parsed: str | None, target: Target) -> bool:
    """Whether an answer is one of the options' texts. Only short answers with options can be another text."""
    if parsed is None or target.kind in CHOICES or not target.options:
        return parsed is not None
    return parsed.strip().casefold() in {option.strip().casefold() for option in target.options}


@cache
def rules(metric: str) -> Rules:
    """The functions of a metric. It raises the error of `score_response`."""
    if metric not in METRICS:
        raise EvaluationError(
            f"metric = {metric!r} is not known.", remedy=f"Choose one of {', '.join(sorted(METRICS))}."
        )
    found = METRICS[metric]
    module = import_module(f"components.evaluation.scoring.metrics.{found.module}")
    return Rules(
        official=getattr(module, found.official),
        strict=module.strict,
        variants={name: getattr(module, function) for name, function in found.variants.items()},
    )
