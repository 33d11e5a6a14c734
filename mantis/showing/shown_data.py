"""The content of `mantis data show`, for its text, its JSON and its page."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, computed_field

from mantis.showing.visible_text import as_utf8, visible

Utf8 = Annotated[str, BeforeValidator(as_utf8)]
Fact = int | float | Utf8


class Shown(BaseModel):
    """Base of everything that is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ShownImage(Shown):
    """An image of a row. Width and height are in pixels of the original; `tokens` are positions of the model.

    `problem` says why the image cannot be used. `thumbnail` is a data URI, which JSON leaves out.
    """

    path: Utf8 = ""
    width: int | None = None
    height: int | None = None
    tokens: int | None = None
    problem: Utf8 = ""
    thumbnail: str = Field("", exclude=True)


class ShownTurn(Shown):
    """A turn with its `<image>` marks. `learned` says whether the loss counts it."""

    role: str
    content: Utf8
    learned: bool


class TokenPiece(Shown):
    """Tokens that are shown together: one token, the tokens of one image, or the parts of one character.

    `image` is the number of the image, from 1; None for text. `learned` says whether the tokens are targets.
    """

    ids: tuple[int, ...]
    text: Utf8
    image: int | None = None
    learned: bool


class ShownTokens(Shown):
    """The tokens that training reads of a row.

    `whole` is the number of tokens before the row was cut to the context. `targets` counts the learned ones.
    """

    count: int
    targets: int
    whole: int
    pieces: tuple[TokenPiece, ...]


class ShownFinding(Shown):
    """A reason of the ledger for one row: the value found, the threshold, the meaning and the remedy."""

    action: Literal["dropped", "repaired", "noted"]
    reason: str
    value: Utf8
    threshold: Utf8
    meaning: str
    remedy: str


class ShownRow(Shown):
    """One row or sample.

    Args:
        subset: name of its subset.
        row: number of the row in the source, from 0; None for a sample of a mixture.
        position: position in the mixture's index; None outside of a run.
        id: name of the row.
        dropped: the model sees nothing of it.
        findings: entries of the ledger about it.
        system: text before the turns.
        turns: the conversation, as far as it can be read.
        images: its images, at most as many as are shown.
        images_left_out: number of images that are not shown.
        tokens: None for a dropped row.
        raw: the row as JSON, if it cannot be read as a conversation.
        weight: factor of its loss.
    """

    subset: str
    row: int | None = None
    position: int | None = None
    id: Utf8
    dropped: bool = False
    findings: tuple[ShownFinding, ...] = ()
    system: Utf8 = ""
    turns: tuple[ShownTurn, ...] = ()
    images: tuple[ShownImage, ...] = ()
    images_left_out: int = 0
    tokens: ShownTokens | None = None
    raw: Utf8 = ""
    weight: float = 1.0


class ReasonRow(Shown):
    """An example of a reason: a row of the ledger."""

    row: int
    id: Utf8
    value: Utf8


class ReasonCount(Shown):
    """A reason with its number of rows, and the first of them."""

    subset: str
    action: Literal["dropped", "repaired", "noted"]
    reason: str
    rows: int
    meaning: str
    remedy: str
    first: tuple[ReasonRow, ...]


class PackedSample(Shown):
    """A sample in a micro-step."""

    position: int
    subset: str
    id: Utf8
    tokens: int
    patches: int
    images: int


class ShownMicroStep(Shown):
    """The samples that one rank trains at once. `number` counts from 1, `rank` from 0."""

    rank: int
    number: int
    samples: tuple[PackedSample, ...]

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def patches(self) -> int:
        """Image patches of all samples."""
        return sum(sample.patches for sample in self.samples)


class ShownStep(Shown):
    """An optimizer step, cut into micro-steps. `step` counts from 1 to `steps`.

    `idle` is the share of time in which ranks wait for the slowest one, as planned.
    """

    step: int
    steps: int
    samples: int
    ranks: int
    token_budget: int
    patch_budget: int
    idle: float
    micro_steps: tuple[ShownMicroStep, ...]


class PlotBar(Shown):
    """One bar of a plot."""

    label: str
    count: int


class ShownPlot(Shown):
    """Bars with a title. `unit` names what a bar counts."""

    title: str
    unit: str
    bars: tuple[PlotBar, ...]


class ShownData(Shown):
    """Everything that one call of `mantis data show` says.

    Args:
        kind: a source, a prepared set (`dataset`), or a step of a run.
        name: its address, or the id of the run.
        facts: names and values of a few figures. A fraction is a share.
        notes: sentences that a reader has to know.
        step: the micro-steps, for a step of a run.
        rows: the conversations.
        reasons: dropped, repaired and noted rows by reason.
        plots: lengths, images and drops.
    """

    kind: Literal["source", "dataset", "step"]
    name: Utf8
    facts: dict[str, Fact]
    notes: tuple[str, ...] = ()
    step: ShownStep | None = None
    rows: tuple[ShownRow, ...]
    reasons: tuple[ReasonCount, ...]
    plots: Annotated[tuple[ShownPlot, ...], AfterValidator(lambda plots: tuple(each for each in plots if each.bars))]


def targets_of(pieces: Iterable[TokenPiece]) -> int:
    """Number of learned tokens."""
    return sum(len(piece.ids) for piece in pieces if piece.learned)


def fact_text(value: int | float | str) -> str:
    """A fact for people: numbers with separators, shares in percent, text without hidden characters."""
    if isinstance(value, str):
        return visible(value)
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}"
