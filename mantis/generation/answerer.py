"""What generation asks of a model: a protocol for our families, for any model of transformers, and for an endpoint."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mantis.artifacts.manifest import Manifest
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.generation.decoding import Decoding
from mantis.generation.generation_batches import Cost, batches
from mantis.generation.sample_images import Picture
from mantis.models.conversation import Turn
from mantis.store.base import ObjectStore

if TYPE_CHECKING:
    from mantis.generation.live_rows import LiveRow, Reply

REFUSED = "refused"  # reason of a sample that the model's service refuses to answer


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question: the user's turn, its images, and the answers that are allowed (empty: any text).

    `history` holds the turns before it, and `system` the text before them; empty keeps the model's own. The turns of
    `history` and `prompt` hold an `<image>` mark for each of `pictures`, in order.
    """

    id: str
    prompt: str
    pictures: tuple[Picture, ...]
    allowed: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()
    system: str = ""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The whole conversation. The last turn is the user's."""
        return (*self.history, Turn(role="user", content=self.prompt))


@dataclass(frozen=True, kw_only=True)
class PreparedQuestion:
    """A question, and what it costs to answer."""

    question: Question
    cost: Cost


AnyPrepared = TypeVar("AnyPrepared", bound=PreparedQuestion)
Asked = TypeVar("Asked", bound=PreparedQuestion, contravariant=True)


class Answerer(Protocol[Asked]):
    """Answers batches: a model on one device, or a service."""

    def answer(self, batches: Iterable[Sequence[Asked]]) -> Iterator[Sequence[str | None]]:
        """Yield the responses of each batch, in order. None: the service refuses to answer this question.

        Raises:
            EvaluationError: the model cannot answer at all.
        """
        ...


class LiveAnswerer(Answerer[Asked], Protocol[Asked]):
    """A model on one device whose responses can be read while they grow."""

    @property
    def context(self) -> int:
        """The number of tokens that the model was made for: a prompt and its response."""
        ...

    def reply(self, batch: Sequence[Asked], rows: Sequence["LiveRow"]) -> list["Reply"]:
        """Answer one batch while its rows follow: the text that `answer` gives, up to each row's own limits."""
        ...


class OpenModel(Protocol[AnyPrepared]):
    """A model whose files are at hand. Its weights are not loaded yet."""

    def prepare(self, questions: Sequence[Question]) -> list[AnyPrepared]:
        """Compute the cost of every question."""
        ...

    def plan(self, prepared: Sequence[AnyPrepared], settings: EvaluationSettings) -> list[list[AnyPrepared]]:
        """Group the questions into batches, the most expensive batch first."""
        ...

    def devices(self, processes: int) -> list[str]:
        """Choose the device of each process; 0 processes: as many as the machine suggests."""
        ...

    def load(self, device: str) -> Answerer[AnyPrepared]:
        """Load the model onto a device.

        Raises:
            EvaluationError: the files hold no model that can be loaded.
        """
        ...


class OpenLiveModel(OpenModel[AnyPrepared], Protocol[AnyPrepared]):
    """A model whose files are at hand, and that answers on this machine."""

    def load(self, device: str) -> LiveAnswerer[AnyPrepared]:
        """As in OpenModel."""
        ...


class AnsweringModel(Protocol):
    """A model that is asked, before its files are read.

    `manifest` names the model in the store: the weights themselves, or a folder or a service outside. `restricts` tells
    whether answers can be restricted to valid ones, as controls need it.
    """

    @property
    def manifest(self) -> Manifest:
        """The artifact that an evaluation names as its input."""
        ...

    @property
    def family(self) -> str:
        """The model's family, since some profiles have values of their own for it; empty for every other model."""
        ...

    @property
    def restricts(self) -> bool:
        """Whether `Question.allowed` has an effect."""
        ...

    @property
    def revision(self) -> int:
        """Version of the code that generates. It is raised when the same question would get another response."""
        ...

    def identity(self) -> dict[str, object]:
        """What decides a response, besides weights, prompt, images and decoding profile."""
        ...

    def open(self, store: ObjectStore, decoding: Decoding, temporary: Path) -> OpenModel[Any]:
        """Make the model's files available, below `temporary` where they have to be copied.

        Raises:
            EvaluationError: there is no such model.
        """
        ...


def batches_by_cost(
    prepared: Sequence[AnyPrepared], settings: EvaluationSettings, decoding: Decoding
) -> list[list[AnyPrepared]]:
    """Group questions into batches within the recipe's budgets of tokens and patches."""
    places = batches(
        [each.cost for each in prepared],
        new_tokens=decoding.max_new_tokens,
        batch_tokens=settings.batch_tokens,
        batch_patches=settings.batch_patches,
    )
    return [[prepared[place] for place in batch] for batch in places]
