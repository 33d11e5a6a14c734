"""The rows of an evaluation's scores.json: evaluation writes them, the report reads them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

CONTROL_P = 0.001  # a control is above chance where its one-sided p is below this (99.9 %)


class _ScoreForm(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class PublishedScore(_ScoreForm):
    """A published result in percent; `comparable`: on the samples that were asked here."""

    model: str
    accuracy: float
    source: str = ""
    comparable: bool = True


def skill_weights(skills: Sequence[str], groups: Mapping[str, str]) -> list[float]:
    """The weights of skills in an average over skills, with the sum 1.

    Every group weighs the same, and in it every skill. A skill without a group is a group by itself.
    """
    sizes = Counter(groups.get(skill, skill) for skill in skills)
    return [1 / (len(sizes) * sizes[groups.get(skill, skill)]) for skill in skills]


class Score(_ScoreForm):
    """A row of scores.json; accuracies are shares from 0 to 1, None where a control was not asked.

    The fields stand in the order of the file. Those with a default may be missing in files of earlier versions.
    """

    benchmark: str
    skill: str
    label: str = ""
    metric: str = ""
    aggregation: str | None = None  # only in the row that stands for all skills of a benchmark
    groups: dict[str, str] = {}  # of a grouped headline: the group of each skill
    samples: int
    drawn_from: int | None = None  # samples of the whole benchmark or skill, if `samples` are a random part of them
    missing: int = 0
    accuracy: float
    low: float
    high: float
    official: float | None = None
    strict: float | None = None
    chance: float
    unparsed: int | None = None
    cut: int = 0  # responses of which only the beginning and the end were scored
    variants: dict[str, float] = {}  # accuracies by the variants of the metric
    blind: float | None = None
    blind_p: float | None = None
    shuffled: float | None = None
    shuffled_p: float | None = None
    paper: tuple[PublishedScore, ...] = ()  # only in the row that stands for all skills of a benchmark

    def stored(self) -> dict[str, Any]:
        """The row as scores.json holds it: `paper` is only in the row of a whole benchmark."""
        return self.model_dump(mode="json", exclude=None if self.overall else {"paper"})

    @property
    def title(self) -> str:
        """What a person calls the skill."""
        return self.label or self.skill

    @property
    def counted(self) -> str:
        """The number of samples as a person reads it; of a random sample, also how many it was drawn from."""
        return f"{self.samples:,}" if self.drawn_from is None else f"{self.samples:,} of {self.drawn_from:,}"

    @property
    def overall(self) -> bool:
        """Whether the row stands for a whole benchmark."""
        return self.aggregation is not None

    @property
    def points(self) -> float:
        """Percentage points above chance."""
        return 100 * (self.accuracy - self.chance)

    @property
    def above_chance(self) -> bool:
        """Whether all of the 95 % interval lies above chance."""
        return self.low > self.chance

    def controls(self) -> dict[str, float]:
        """The controls that were asked, by name."""
        asked = {"blind": self.blind, "shuffled": self.shuffled}
        return {name: value for name, value in asked.items() if value is not None}

    def suspicious_controls(self) -> list[str]:
        """Names of the controls that are above chance, which they must not be."""
        values = {"blind": self.blind_p, "shuffled": self.shuffled_p}
        return [name for name, p in values.items() if p is not None and p < CONTROL_P]
