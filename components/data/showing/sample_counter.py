"""Counts the tokens of rows before a mixture is assembled, and shows what training would read of a row."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from components.data.mixture.assemble import ROWS_AT_ONCE, length_kept, mixture_tokenizer
from components.data.mixture.lengths import Batch, Counter, Length
from components.data.prepare.ledger import Ledger
from mantis.config.recipe import Recipe
from mantis.dataset.mixture_reader import conversation_of
from mantis.models.conversation import Conversation, learned_from
from mantis.models.family import Processor
from mantis.models.registry import family
from mantis.showing.sample_view import shown_images, shown_tokens, shown_turns
from mantis.showing.shown_data import Fact, ShownRow
from mantis.store.base import ObjectStore


@dataclass(frozen=True, kw_only=True)
class SampleCounter:
    """Rows of one subset as training would read them. Rows have the columns of data.lance.

    Args:
        subset: name of the subset.
        processor: that of the recipe's model.
        counter: counts tokens as the step `assemble` does.
        recipe: name of the recipe.
        rows: number of rows that a tokenizer from scratch was trained on.
    """

    subset: str
    processor: Processor
    counter: Counter
    recipe: str
    rows: int

    def lengths(self, rows: Batch) -> tuple[dict[int, Length], Ledger]:
        """The length of each row that the mixture would keep, by its number, and the ledger of the mixture."""
        ledger, found = Ledger(), {}
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            for row, length in zip(part, self.counter.count(part), strict=True):
                if length_kept(length, ledger, self.subset, row, self.counter):
                    found[row["row"]] = length
        return found, ledger

    def view(
        self, row: dict[str, Any], length: Length | None, images: Sequence[bytes], paths: Sequence[str]
    ) -> ShownRow:
        """A row as training would read it. A row without a length is left out of the mixture."""
        if length is None:
            whole = conversation_of(row)
            unseen = replace(whole, turns=learned_from(whole.turns, len(whole.turns)))
            return self._shown(row, unseen, images, paths)
        cut = conversation_of(row, turns=length.turns)
        conversation = replace(cut, turns=learned_from(cut.turns, length.learned_from))
        tokens = shown_tokens(self.processor, conversation, self.processor.encode(conversation), whole=length.whole)
        shown = self._shown(row, conversation, images[: len(cut.sizes)], paths)
        return shown.model_copy(update={"tokens": tokens})

    def facts(self) -> dict[str, Fact]:
        """What decides the tokens of a row."""
        model = self.counter.model
        return {
            "model family": model.family,
            "chat template": model.prompt,
            "tokens of the vocabulary": len(self.processor.tokenizer),
            "tokens of the context": self.counter.context_length,
        }

    def notes(self) -> tuple[str, ...]:
        """What a reader has to know about the figures."""
        if self.counter.model.scratch_shape is None:
            return ()
        return (
            f"The model of the recipe {self.recipe} starts from scratch, and its tokenizer is trained on the whole "
            f"mixture. The tokens here are those of a tokenizer that was trained on {self.rows:,} rows.",
        )

    def _shown(
        self, row: dict[str, Any], conversation: Conversation, images: Sequence[bytes], paths: Sequence[str]
    ) -> ShownRow:
        shown = shown_images(self.processor, conversation, images, paths)
        return ShownRow(
            subset=self.subset,
            row=row["row"],
            id=row["id"],
            system=conversation.system,
            turns=shown_turns(conversation),
            images=shown,
            images_left_out=len(images) - len(shown),
            weight=row["weight"],
        )


@contextmanager
def counting(store: ObjectStore, recipe: Recipe, subset: str, rows: Batch) -> Iterator[SampleCounter]:
    """A counter for the recipe's model. A model from scratch has a tokenizer of its mixture, which is not known yet.

    Its tokenizer is trained on `rows` instead.

    Raises:
        InputError: the base of the model is not in the store.
    """
    tokenizer = mixture_tokenizer(store, recipe, [rows])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        yield SampleCounter(
            subset=subset,
            processor=family(recipe.model.family).processor(
                PreTrainedTokenizerFast.from_pretrained(folder), recipe.model
            ),
            counter=Counter(
                model=recipe.model,
                tokenizer_folder=folder,
                context_length=recipe.data.context_length,
                learn=recipe.data.learn,
            ),
            recipe=recipe.name,
            rows=len(rows),
        )
