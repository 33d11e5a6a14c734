"""The rows of an evaluation's scores.json: evaluation writes them, the report reads them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

CONTROL_P = 0.001  # a control is above chance where its corrected p is below this (99.9 %)
CONTROLS_CHOOSE = (
    "A control must choose one of the valid answers, while the model may write any text. So an accuracy below that of "
    "a control can come from responses without a valid answer."
)
MOSTLY = 0.5  # share of responses without an answer from which a score says nothing


class _ScoreForm(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class PublishedScore(_ScoreForm):
    """A published result in percent.

    `conditions` say how it was made and scored, as far as its source states that. `comparable` says whether the score
    was made in the same way, on the same samples. If not, `reason` says why.
    """

    model: str
    accuracy: float
    source: str = ""
    split: str = ""
    samples: int | None = None
    conditions: dict[str, str] = Field(default_factory=dict)
    comparable: bool = True
    reason: str = ""


def skill_weights(skills: Sequence[str], groups: Mapping[str, str]) -> list[float]:
    """The weights of skills in an average over skills, with the sum 1.

    Every group weighs the same, and in it every skill. A skill without a group is a group by itself.
    """
    sizes = Counter(groups.get(skill, skill) for skill in skills)
    return [1 / (len(sizes) * sizes[groups.get(skill, skill)]) for skill in skills]


class Score(_ScoreForm):
    """A row of scores.json; accuracies are shares from 0 to 1, None where a control was not asked.

    The fields stand in the order of the file. Those with a default may be missing in files of earlier versions.

    - `units` are the things that count as right or wrong, `clusters` the groups of them that share an image or a clip.
    - `unparsed` counts the responses in which the scoring of `accuracy` found no answer.
    - `<control>_p` is one-sided, of this row alone. `<control>_corrected_p` is corrected for the benchmark's rows.
    - `comparable` says whether some published result was made as this score was. If not, `reason` says why.
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
    units: int | None = None
    clusters: int | None = None
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
    blind_corrected_p: float | None = None
    shuffled: float | None = None
    shuffled_p: float | None = None
    shuffled_corrected_p: float | None = None
    conditions: dict[str, str] = Field(default_factory=dict)
    comparable: bool = False
    reason: str = ""
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
    def half_width(self) -> float:
        """Half of the width of the 95 % interval, in percentage points."""
        return 50 * (self.high - self.low)

    @property
    def unreadable(self) -> bool:
        """Whether most responses hold no answer. The score then says nothing about the model."""
        return self.unparsed is not None and self.unparsed > MOSTLY * self.samples

    @property
    def above_chance(self) -> bool:
        """Whether all of the 95 % interval lies above chance."""
        return self.low > self.chance and not self.unreadable

    def controls(self) -> dict[str, float]:
        """The controls that were asked, by name."""
        asked = {"blind": self.blind, "shuffled": self.shuffled}
        return {name: value for name, value in asked.items() if value is not None}

    def control_p(self, name: str) -> float | None:
        """The corrected p of a control. Files of earlier versions only have that of the row alone."""
        corrected: float | None = getattr(self, f"{name}_corrected_p")
        alone: float | None = getattr(self, f"{name}_p")
        return alone if corrected is None else corrected


def suspicious_controls(rows: Sequence[Score]) -> list[tuple[Score, str]]:
    """The controls that are above chance, which they must not be: their row and name.

    A p is corrected for the rows of its benchmark. Several benchmarks share the level. So some row of a control that
    guesses is in this list with a probability of at most CONTROL_P.
    """
    level = CONTROL_P / max(1, len({row.benchmark for row in rows}))
    found = []
    for row in rows:
        for name in row.controls():
            p = row.control_p(name)
            if p is not None and p < level:
                found.append((row, name))
    return found
