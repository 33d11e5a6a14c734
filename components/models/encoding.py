"""The text half of every family: a conversation, or a prompt, as tokens with labels."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerFast

from components.core.errors import ConfigError
from components.core.settings import ModelSettings
from components.models.conversation import IMAGE_MARK, Conversation, Size
from components.models.family import IGNORE, Encoding
from components.models.prompts import Piece, profile, render, render_prompt


class Encoder(ABC):
    """What a family inherits; it says which tokens an image becomes."""

    mark: str = IMAGE_MARK  # the token of the tokenizer that stands for a whole image until it is expanded

    @abstractmethod
    def image_ids(self, size: Size, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> list[int]:
        """The tokens that an image of this size becomes; nothing is decoded."""

    def encode(
        self, conversation: Conversation, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> Encoding:
        """See Family."""
        return self.encode_batch([conversation], tokenizer, settings)[0]

    def encode_batch(
        self, conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> list[Encoding]:
        """See Family."""
        style = profile(settings.prompt)
        pieces = [render(conversation, style, mark=self.mark) for conversation in conversations]
        return self._encode(pieces, conversations, tokenizer, settings)

    def encode_prompt(
        self, conversation: Conversation, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> list[int]:
        """See Family."""
        pieces = render_prompt(conversation, profile(settings.prompt), mark=self.mark)
        return self._encode([pieces], [conversation], tokenizer, settings)[0].input_ids

    def end_of_answer(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> int:
        """See Family."""
        style = profile(settings.prompt)
        return token_id(tokenizer, style.end if style.stop is None else style.stop)

    def _encode(
        self,
        texts: Sequence[list[Piece]],
        conversations: Sequence[Conversation],
        tokenizer: PreTrainedTokenizerFast,
        settings: ModelSettings,
    ) -> list[Encoding]:
        """Every conversation's pieces as tokens; piece by piece, since tokens must not cross from text to target."""
        mark = token_id(tokenizer, self.mark)
        # The tokenizer's own object: the wrapper around it costs several times the tokenizing of a short text.
        tokens = iter(
            tokenizer.backend_tokenizer.encode_batch_fast(
                [piece.text for pieces in texts for piece in pieces], add_special_tokens=False
            )
        )
        encodings: list[Encoding] = []
        for pieces, conversation in zip(texts, conversations, strict=True):
            images = iter([self.image_ids(size, tokenizer, settings) for size in conversation.sizes])
            input_ids: list[int] = []
            labels: list[int] = []
            for piece in pieces:
                ids = next(tokens).ids
                shown = ids if mark not in ids else _expand(ids, mark, images)
                input_ids += shown
                if not piece.target:
                    labels += [IGNORE] * len(shown)
                elif shown is ids:
                    labels += ids
                else:  # an image in an answer, whose tokens nobody learns
                    never = {mark, *self.image_ids(Size(width=1, height=1), tokenizer, settings)}
                    labels += [IGNORE if token in never else token for token in shown]
            encodings.append(Encoding(input_ids=input_ids, labels=labels))
        return encodings


def _expand(ids: list[int], mark: int, images: Iterator[list[int]]) -> list[int]:
    """`ids` with the next of `images` in place of every mark."""
    expanded: list[int] = []
    for token in ids:
        if token == mark:
            expanded += next(images)
        else:
            expanded.append(token)
    return expanded


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """Id of a token that has to be whole.

    Raises:
        ConfigError: the tokenizer does not know it.
    """
    found = tokenizer.backend_tokenizer.token_to_id(token)
    if found is None:
        raise ConfigError(
            f"The tokenizer has no token {token!r}.", remedy="Train it with the family's special_tokens()."
        )
    return int(found)
