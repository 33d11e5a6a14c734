"""The content of a report as frozen values, collected once and rendered as HTML, Markdown and JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from shlex import quote

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from components.reporting.collect.fidelity_rows import FidelityRow
from mantis.artifacts.held_out import BENCHMARK as HELD_OUT
from mantis.artifacts.held_out import HeldOutScore
from mantis.artifacts.layout import report_key
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
    # Schema version 1 of gallery.json calls this field `understood`.
    parsed: bool = Field(True, validation_alias=AliasChoices("parsed", "understood"))
    images: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One column of metrics.jsonl over the steps; `points` are (step, value), with values in `unit`."""

    name: str
    title: str
    unit: str = ""
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Straggler:
    """The rank that most often took longest for the same work, and its time as a multiple of the median rank's."""

    rank: int
    slowdown: float


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """On what a training ran, and how; None where the checkpoint does not say.

    Attributes:
        hardware: the devices of the last attempt.
        ranks: number of ranks of the last attempt.
        nodes: number of nodes of the last attempt.
        gpus: number of GPUs; 0 without GPUs.
        software: versions on one line.
        device_hours: hours that all devices were taken together, over all attempts.
        price: price of a device for an hour, from the recipe.
        settings: names and values of the recipe's training.
    """

    hardware: str | None
    ranks: int | None
    nodes: int | None
    gpus: int | None
    software: str | None
    device_hours: float | None
    price: float | None
    settings: tuple[tuple[str, str], ...]

    @property
    def cost(self) -> float | None:
        """The price of the hours of all devices."""
        return None if self.price is None or self.device_hours is None else self.price * self.device_hours


@dataclass(frozen=True, kw_only=True)
class BestStep:
    """The step with the lowest held-out loss, the last loss, and whether training ended before its last step."""

    step: int
    loss: float
    last_loss: float
    samples: int
    stopped_early: bool


@dataclass(frozen=True, kw_only=True)
class Training:
    """Figures of the training, from the checkpoint; None if the checkpoint lacks one.

    `seconds` maps each cause of goodput (see formatting.CAUSES) to its time.
    """

    steps: int | None
    samples: int | None
    tokens: int | None
    parameters: int | None
    first_loss: float | None
    last_loss: float | None
    samples_per_second: float | None
    goodput: float | None
    setup: TrainingSetup
    best: BestStep | None
    straggler: Straggler | None
    attention: str  # the kernel; empty for checkpoints of earlier versions
    seconds: Mapping[str, float]
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Rows of one subset as read, kept, dropped and repaired, and its samples, images and tokens in an epoch."""

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
    """The terms of a published subset or of base weights; `origin` names the page that states them."""

    subset: str
    name: str
    terms: str
    forbids: tuple[str, ...] = ()
    origin: str = ""


class Contamination(_Row):
    """The images of one benchmark that also occur in the training mixture.

    Attributes:
        benchmark: its name.
        images: number of the benchmark's images.
        hashed: number of images that have a perceptual hash.
        unreadable: number of images that could not be decoded.
        exact: number of images with the same bytes as a training image.
        similar: number of images that resemble a training image.
        samples: number of training samples that show one of these images.
        examples: a few matches, in words.
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
    """A row of a ledger, shown as an example."""

    row: int
    id: str
    value: str
    threshold: str


@dataclass(frozen=True, kw_only=True)
class LedgerReason:
    """All ledger rows with one reason: their number, and the first few as examples."""

    subset: str
    step: str
    action: str
    reason: str
    count: int
    examples: tuple[LedgerRow, ...]


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """The time of a step, as recorded when the report was made."""

    step: str
    state: State
    started: datetime
    ended: datetime
    seconds: float
    attempts: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One artifact of the lineage; `depth` is its distance from the evaluations."""

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
    """The cost of one evaluation: answers generated in this run, and seconds; None if the summary lacks them."""

    benchmark: str
    generated: int | None
    seconds: float | None

    @property
    def per_second(self) -> float | None:
        """Generated answers per second."""
        return self.generated / self.seconds if self.generated and self.seconds else None


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything that the report of one run shows. `notes` name, in plain words, everything that is missing."""

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
    held_out: tuple[HeldOutScore, ...]
    margin: float
    gallery: tuple[Answer, ...]
    left_out_of_gallery: int
    judged: int = 0  # answers on the page beside the report, which is written later
    lineage: tuple[Artifact, ...]
    notes: tuple[str, ...]
    fidelity: tuple[FidelityRow, ...] = ()

    @property
    def skills(self) -> list[Score]:
        """The rows that are about a skill of a benchmark. Held-out rows have a section of their own."""
        return [score for score in self.scores if not score.overall and score.benchmark != HELD_OUT]

    @property
    def benchmarks(self) -> list[Score]:
        """The rows that are about a whole benchmark, without the held-out rows."""
        return [score for score in self.scores if score.overall and score.benchmark != HELD_OUT]

    @property
    def page_folder(self) -> str:
        """The folder of the report, relative to its store."""
        return report_key(self.run)

    @property
    def evaluations(self) -> list[Artifact]:
        """The artifacts at which the lineage begins."""
        return [artifact for artifact in self.lineage if artifact.kind == "evaluation"]

    def total(self, field: str) -> int | None:
        """The sum of a column of `subsets`; None if one value is unknown."""
        values = [getattr(subset, field) for subset in self.subsets]
        return None if None in values else sum(values)

    def lineage_commands(self) -> list[str]:
        """Commands that walk the lineage: from one shown prediction, and from every evaluation."""
        keys = [artifact.key for artifact in self.evaluations]
        first = next(iter(self.gallery), None)
        shown = [f"{key}#{first.id}" for key in keys if first and f"/{first.benchmark}/" in key]
        return [f"mantis lineage {quote(key)}" for key in [*shown, *keys]]

    def gallery_by_skill(self) -> Iterator[tuple[str, list[Answer]]]:
        """Yield the gallery's answers by the title of their skill, in the gallery's order."""
        groups: dict[tuple[str, str], list[Answer]] = {}
        for answer in self.gallery:
            groups.setdefault((answer.benchmark, answer.skill), []).append(answer)
        for answers in groups.values():
            yield answers[0].label or answers[0].skill, answers
