"""A model that is loaded to answer conversations, exactly as evaluation would answer them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import InputError
from mantis.generation.answerer import LiveAnswerer, OpenLiveModel, PreparedQuestion, Question
from mantis.generation.answering_models import ChatModel, FamilyModel
from mantis.generation.decoding import END_OF_TEXT, Decoding
from mantis.generation.live_rows import LiveRow, Reply
from mantis.generation.sample_images import grey_picture
from mantis.models.conversation import IMAGE_MARK, ImageSize
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore

MAX_TOKENS = 512  # of a response, unless the user says otherwise
PROBE_TEXTS = ("What is this?", "What is this? Answer in one word, and say nothing about the colours.")
PROBE_SIZE = ImageSize(width=64, height=48)


@dataclass(frozen=True, kw_only=True)
class LiveModel:
    """A loaded model with its processor.

    `counter` counts tokens and `answerer` generates. Each has a processor of its own, so that two threads can use them.
    """

    name: str
    counter: OpenLiveModel[Any]
    answerer: LiveAnswerer[Any]
    settings: EvaluationSettings
    decoding: Decoding
    device: str
    context: int  # tokens of a prompt and its response that the model was made for

    def prepare(self, question: Question) -> PreparedQuestion:
        """Encode a question and compute its cost.

        Raises:
            InputError: it is longer than the model's context.
            InputError, EvaluationError: the model's template cannot express the question.
        """
        prepared: PreparedQuestion = self.counter.prepare([question])[0]
        if prepared.cost.tokens >= self.context:
            raise InputError(
                f"The conversation has {prepared.cost.tokens:,} tokens with its images, and the model reads "
                f"{self.context:,}.",
                remedy="Begin a new conversation, or show fewer images.",
            )
        return prepared

    def longest_answer(self, prepared: PreparedQuestion, wanted: int | None = None) -> int:
        """The limit of a response in tokens: `wanted`, else that of the decoding, within the model's context."""
        return min(wanted or self.decoding.max_new_tokens, self.context - prepared.cost.tokens)

    def plan(self, prepared: Sequence[PreparedQuestion]) -> list[list[PreparedQuestion]]:
        """Group questions into batches within the budgets of the settings, as evaluation does."""
        return self.counter.plan(prepared, self.settings)

    def reply(self, batch: Sequence[PreparedQuestion], rows: Sequence[LiveRow]) -> list[Reply]:
        """Answer a batch of questions in this thread."""
        return self.answerer.reply(batch, rows)


@contextmanager
def opened_live_model(
    store: ObjectStore,
    model: FamilyModel | ChatModel,
    *,
    name: str,
    max_tokens: int = MAX_TOKENS,
    settings: EvaluationSettings | None = None,
) -> Iterator[LiveModel]:
    """Load a model onto the first GPU, else the CPU. Copies of its files are deleted when the context ends.

    Raises:
        EvaluationError: the files hold no model that can be loaded.
    """
    decoding = Decoding(max_new_tokens=max_tokens, stop=(END_OF_TEXT,))
    budgets = settings or EvaluationSettings()
    with TemporaryDirectory(prefix="mantis-model-") as temporary:
        opened = model.open(store, decoding, Path(temporary))
        # The first one copied the files of a model in a bucket.
        copied = store if isinstance(store, LocalStore) else LocalStore(Path(temporary))
        counter = model.open(copied, decoding, Path(temporary))
        # Loading compares a batch of the planned questions with single ones, and ends batching if they differ.
        opened.plan(opened.prepare(_probe()), budgets)
        device = opened.devices(1)[0]
        answerer = opened.load(device)
        yield LiveModel(
            name=name,
            counter=counter,
            answerer=answerer,
            context=answerer.context,
            settings=budgets,
            decoding=decoding,
            device=device,
        )


def _probe() -> list[Question]:
    """Two questions of different lengths, each with an image."""
    picture = grey_picture(PROBE_SIZE)
    return [Question(id=text, prompt=IMAGE_MARK + text, pictures=(picture,)) for text in PROBE_TEXTS]
