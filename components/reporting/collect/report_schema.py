"""What a report shows, as frozen values: collected once, rendered as a page, as Markdown and as JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from shlex import quote

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from mantis.artifacts.scores import Score
from mantis.runs.records import State


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Answer(_Row):
    """An entry of gallery.json; `images` are data URIs."""

    benchmark: str
    skill: str
    label: str = ""
    id: str
    question: str
    options: tuple[str, ...] = ()
    answer: str
    response: str
    correct: bool
    # Schema version 1 of gallery.json said `understood`.
    parsed: bool = Field(True, validation_alias=AliasChoices("parsed", "understood"))
    images: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One column of metrics.jsonl over the steps."""

    name: str
    title: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Straggler:
    """The rank that was most often the slowest at the same work, and its time over the median rank's there."""

    rank: int
    slowdown: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the checkpoint says about its training; None where it does not say. Seconds are by cause of goodput."""

    steps: int | None
    samples: int | None
    tokens: int | None
    parameters: int | None
    first_loss: float | None
    last_loss: float | None
    samples_per_second: float | None
    goodput: float | None
    straggler: Straggler | None
    seconds: Mapping[str, float]
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Rows of one subset: as read, kept, dropped and repaired, and what an epoch takes of it."""

    name: str
    skill: str = ""
    rows: int | None
    kept: int | None
    dropped: int | None
    repaired: int | None
    samples: int | None
    images: int | None
    tokens: int | None


class LicenceNotice(_Row):
    """The terms of a published subset, or of weights that training began with; `origin` says where they were read."""

    subset: str
    name: str
    terms: str
    forbids: tuple[str, ...] = ()
    origin: str = ""


class Contamination(_Row):
    """One benchmark: its images, how many have a perceptual hash, and how many are in the training mixture.

    `samples` are the training samples that show one of them; `examples` a few pairs, in words.
    """

    benchmark: str
    images: int
    hashed: int
    unreadable: int
    exact: int
    similar: int
    samples: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """A row of a ledger, as an example."""

    row: int
    id: str
    value: str
    threshold: str


@dataclass(frozen=True, kw_only=True)
class LedgerReason:
    """All rows of a ledger with one reason; the first few as examples."""

    subset: str
    step: str
    action: str
    reason: str
    count: int
    examples: tuple[LedgerRow, ...]


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """A step of the run, up to when the report was made."""

    step: str
    state: State
    started: datetime
    ended: datetime
    seconds: float
    attempts: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One link of the chain, with its distance from the evaluations."""

    depth: int
    role: str
    kind: str
    key: str
    fingerprint: str
    step: str
    revision: int
    run: str
    code_version: str
    image_digest: str


@dataclass(frozen=True, kw_only=True)
class Answering:
    """What one evaluation cost: answers generated (the others were there already) and seconds; None if not said."""

    benchmark: str
    generated: int | None
    seconds: float | None

    @property
    def per_second(self) -> float | None:
        """Answers per second."""
        return self.generated / self.seconds if self.generated and self.seconds else None


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One run. `notes` say in plain words what could not be found; nothing is left out silently."""

    run: str
    recipe: str
    description: str
    recipe_text: str
    made: datetime
    scores: tuple[Score, ...]
    training: Training | None
    subsets: tuple[Subset, ...]
    ledger: tuple[LedgerReason, ...]
    licences: tuple[LicenceNotice, ...]
    contamination: tuple[Contamination, ...]
    steps: tuple[StepTime, ...]
    answering: tuple[Answering, ...]
    reference: str
    gallery: tuple[Answer, ...]
    left_out_of_gallery: int
    lineage: tuple[Artifact, ...]
    notes: tuple[str, ...]

    @property
    def skills(self) -> list[Score]:
        """The rows that stand for a skill."""
        return [score for score in self.scores if not score.overall]

    @property
    def benchmarks(self) -> list[Score]:
        """The rows that stand for a whole benchmark."""
        return [score for score in self.scores if score.overall]

    @property
    def evaluations(self) -> list[Artifact]:
        """The artifacts that the chain begins at."""
        return [artifact for artifact in self.lineage if artifact.kind == "evaluation"]

    def total(self, field: str) -> int | None:
        """Sum of a column of `subsets`, None where one of them is not known."""
        values = [getattr(subset, field) for subset in self.subsets]
        return None if None in values else sum(values)

    def lineage_commands(self) -> list[str]:
        """What to type to walk the chain: from one prediction where one is shown, and from every evaluation."""
        keys = [artifact.key for artifact in self.evaluations]
        first = next(iter(self.gallery), None)
        shown = [f"{key}#{first.id}" for key in keys if first and f"/{first.benchmark}/" in key]
        return [f"mantis lineage {quote(key)}" for key in [*shown, *keys]]

    def gallery_by_skill(self) -> Iterator[tuple[str, list[Answer]]]:
        """The gallery's answers under the title of their skill, in the gallery's order."""
        groups: dict[tuple[str, str], list[Answer]] = {}
        for answer in self.gallery:
            groups.setdefault((answer.benchmark, answer.skill), []).append(answer)
        for answers in groups.values():
            yield answers[0].label or answers[0].skill, answers
