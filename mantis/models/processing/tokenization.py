"""The text half of every processor: a conversation, or a prompt, as tokens with labels."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import ClassVar, Self

from transformers import PreTrainedTokenizerFast

from mantis.config.model_settings import ModelSettings
from mantis.errors import ConfigError, InputError
from mantis.images.preprocessing import encoded_size
from mantis.models.conversation import IMAGE_MARK, Conversation, ImageSize
from mantis.models.family import IGNORE, Encoding
from mantis.models.processing.chat_templates import ChatTemplate, TextSpan, load_chat_template, render, render_prompt


class ImageTokenError(InputError):
    """A text holds the family's image token, beside those that stand for the conversation's images."""


class TextProcessor(ABC):
    """Encodes text; a family's processor inherits it and says which tokens an image becomes.

    A conversation is tokenized whole, as in the official code. The loss mask follows from the separators between turns.
    Tokenizing each turn alone would mark the beginning of a text at every turn. Only templates without separators,
    which are of this project alone, are tokenized piece by piece.
    """

    image_token: ClassVar[str] = IMAGE_MARK  # stands for a whole image in the text until it is expanded
    splits_at_images: ClassVar[bool] = False  # whether each stretch of text between images is tokenized alone

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.template: ChatTemplate = load_chat_template(settings.prompt)

    @abstractmethod
    def image_ids(self, size: ImageSize) -> list[int]:
        """The tokens that an image of this size becomes; decodes nothing."""

    @abstractmethod
    def image_patches(self, size: ImageSize) -> int:
        """See Processor."""

    def sample_patches(self, sizes: Sequence[ImageSize]) -> list[int]:
        """See Processor. A family whose images depend on each other in another way replaces this."""
        within = self.of_sample(sizes)
        return [within.image_patches(size) for size in sizes]

    @property
    def images_depend(self) -> bool:
        """See Processor."""
        return self.settings.image.max_pixels_per_sample is not None

    def of_sample(self, sizes: Sequence[ImageSize]) -> Self:
        """See Processor. `model.image.max_pixels` becomes the largest value with which the sample keeps its bound."""
        image = self.settings.image
        bound = image.max_pixels_per_sample
        if bound is None:
            return self
        most = image.max_pixels or image.size**2
        if self._pixels_with(most, sizes) > bound:
            fitting = bisect_right(range(1, most + 1), bound, key=lambda each: self._pixels_with(each, sizes))
            most = max(1, fitting)
        return self._capped(most)

    def of_images(self, images: Sequence[bytes]) -> Self:
        """`of_sample` for the encoded images of a sample."""
        if not self.images_depend:
            return self
        sizes = [encoded_size(image) for image in images]
        return self.of_sample([ImageSize(width=width, height=height) for height, width in sizes])

    def _pixels_with(self, most: int, sizes: Sequence[ImageSize]) -> int:
        """The pixels of a sample's images under `max_pixels = most`. It never falls while `most` rises."""
        capped = self._capped(most)
        return sum(capped.image_patches(size) for size in sizes) * self.settings.image.patch_size**2

    def _capped(self, most: int) -> Self:
        image = self.settings.image
        least = min(image.min_pixels, most) if image.min_pixels else None
        update = {"max_pixels": most, "min_pixels": least, "max_pixels_per_sample": None}
        capped = copy(self)
        capped.settings = self.settings.model_copy(update={"image": image.model_copy(update=update)})
        return capped

    @property
    def end_of_answer(self) -> int:
        """See Processor."""
        return token_id(self.tokenizer, self.template.end if self.template.stop is None else self.template.stop)

    def encode(self, conversation: Conversation) -> Encoding:
        """See Processor."""
        return self.encode_batch([conversation])[0]

    def encode_batch(self, conversations: Sequence[Conversation]) -> list[Encoding]:
        """See Processor."""
        pieces = [render(conversation, self.template, mark=self.image_token) for conversation in conversations]
        return self._encode(pieces, conversations)

    def encode_prompt(self, conversation: Conversation) -> list[int]:
        """See Processor."""
        pieces = render_prompt(conversation, self.template, mark=self.image_token)
        return self._encode([pieces], [conversation])[0].input_ids

    def _encode(self, texts: Sequence[list[TextSpan]], conversations: Sequence[Conversation]) -> list[Encoding]:
        """Every conversation's pieces as tokens."""
        style, backend = self.template, self.tokenizer.backend_tokenizer
        mark = token_id(self.tokenizer, self.image_token)
        first = [token_id(self.tokenizer, style.first)] if style.first else []
        whole = style.separated and backend.token_to_id(style.user_end) is not None
        groups = [_groups(pieces, whole=whole) for pieces in texts]
        runs = [self._runs(group) for sample in groups for group in sample]
        # The tokenizer's own object: the wrapper around it costs several times the tokenizing of a short text.
        encoded = iter(backend.encode_batch_fast([text for run in runs for text in run], add_special_tokens=False))
        tokens = iter([_joined_by(mark, [next(encoded).ids for _ in run]) for run in runs])
        encodings: list[Encoding] = []
        for pieces, group, conversation in zip(texts, groups, conversations, strict=True):
            found = [next(tokens) for _ in group]
            parts = _cut(found[0], pieces, style, self.tokenizer) if whole else found
            within = self.of_sample(conversation.sizes)
            images = [within.image_ids(size) for size in conversation.sizes]
            encodings.append(_put_together(conversation, pieces, parts, mark=mark, images=images, first=first))
        return encodings

    def _runs(self, text: str) -> list[str]:
        """The texts that are tokenized one by one."""
        return text.split(self.image_token) if self.splits_at_images else [text]


def _groups(pieces: Sequence[TextSpan], *, whole: bool) -> list[str]:
    """The pieces' texts, or all of them as one."""
    texts = [piece.text for piece in pieces]
    return ["".join(texts)] if whole else texts


def _joined_by(mark: int, runs: list[list[int]]) -> list[int]:
    ids = runs[0]
    for run in runs[1:]:
        ids = [*ids, mark, *run]
    return ids


def _cut(
    ids: list[int], pieces: Sequence[TextSpan], style: ChatTemplate, tokenizer: PreTrainedTokenizerFast
) -> Iterator[list[int]]:
    """The tokens of each piece. Every piece but the last ends with the separator of its role.

    Raises:
        ConfigError: the tokenizer does not keep a separator whole.
    """
    separators = {True: style.end, False: style.user_end}  # by whether a piece is an answer
    tokens = {answer: token_id(tokenizer, separator) for answer, separator in separators.items()}
    header = tokenizer.backend_tokenizer.encode(style.assistant_header, add_special_tokens=False).ids
    start = 0
    for piece in pieces:
        separator, token, end = separators[piece.answer], tokens[piece.answer], start
        text = piece.text if piece.answer else piece.text.removesuffix(style.assistant_header)
        if text.endswith(separator):
            for _ in range(text.count(separator)):
                try:
                    end = ids.index(token, end) + 1
                except ValueError:
                    raise ConfigError(
                        f"The tokenizer splits {separator!r}, which it knows as a token.",
                        remedy="Add it to the tokenizer's added tokens; `mantis model verify` shows what differs.",
                    ) from None
            if len(text) < len(piece.text):
                end += _length_of_header(ids[end : end + len(header)], header)
        else:
            end = len(ids)
        yield ids[start:end]
        start = end


def _length_of_header(ids: list[int], header: list[int]) -> int:
    """How many of `ids` are the header's. A token of header and answer in one, such as two newlines, is the answer's.

    So does transformers: it learns from the token that holds the first character.
    """
    return next((at for at, pair in enumerate(zip(ids, header, strict=False)) if pair[0] != pair[1]), len(ids))


def _put_together(
    conversation: Conversation,
    pieces: Sequence[TextSpan],
    parts: Iterable[list[int]],
    *,
    mark: int,
    images: Sequence[list[int]],
    first: list[int],
) -> Encoding:
    waiting = iter(images)
    input_ids, labels = list(first), [IGNORE] * len(first)
    for piece, ids in zip(pieces, parts, strict=True):
        shown, learned = (ids, ids) if mark not in ids else _expand(ids, mark, waiting, conversation.id)
        input_ids += shown
        labels += learned if piece.target else [IGNORE] * len(shown)
    return Encoding(input_ids=input_ids, labels=labels)


def _expand(ids: list[int], mark: int, images: Iterator[list[int]], name: str) -> tuple[list[int], list[int]]:
    """`ids` with the next of `images` in place of every mark, and the same without a label on images.

    Raises:
        ImageTokenError: there are more marks than images.
    """
    expanded: list[int] = []
    labels: list[int] = []
    start = 0
    for _ in range(ids.count(mark)):
        end = ids.index(mark, start)
        image = next(images, None)
        if image is None:
            raise ImageTokenError(
                f"Conversation {name!r} holds the text that stands for an image in the model's vocabulary.",
                remedy="Take it out of the conversation.",
            )
        expanded += ids[start:end] + image
        labels += ids[start:end] + [IGNORE] * len(image)
        start = end + 1
    return expanded + ids[start:], labels + ids[start:]


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
