"""What training reads of a conversation: its tokens with the loss mask, and its images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from mantis.images.thumbnails import thumbnail
from mantis.models.conversation import Conversation
from mantis.models.family import IGNORE, Encoding, Processor
from mantis.showing.shown_data import ShownImage, ShownTokens, ShownTurn, TokenPiece, targets_of

BROKEN = "\ufffd"  # stands for tokens that are no whole character
MOST_IMAGES = 24  # of a row


def shown_tokens(processor: Processor, conversation: Conversation, encoding: Encoding, *, whole: int) -> ShownTokens:
    """The tokens of `encoding`, the encoding of `conversation`, with their loss mask.

    The first token of a sample is never a target, since no hidden state predicts it.
    """
    learned = [place > 0 and label != IGNORE for place, label in enumerate(encoding.labels)]
    within = processor.of_sample(conversation.sizes)
    images = [within.image_ids(size) for size in conversation.sizes]
    writer = _PieceWriter(tokenizer=processor.tokenizer.backend_tokenizer)
    place = number = 0
    ids = encoding.input_ids
    while place < len(ids):
        image = images[number] if number < len(images) else []
        if image and ids[place : place + len(image)] == image:
            number += 1
            writer.add_image(image, number)
            place += len(image)
        else:
            writer.add(ids[place], learned=learned[place])
            place += 1
    pieces = writer.finish()
    return ShownTokens(count=len(ids), targets=targets_of(pieces), whole=whole, pieces=pieces)


@dataclass(kw_only=True)
class _PieceWriter:
    """Writes tokens as text. Tokens that are parts of one character become one piece."""

    tokenizer: Tokenizer
    pieces: list[TokenPiece] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    learned: bool = False

    def __post_init__(self) -> None:
        self.stream = DecodeStream(skip_special_tokens=False)

    def add(self, token: int, *, learned: bool) -> None:
        if self.waiting and learned != self.learned:
            self._flush(BROKEN)
        self.waiting.append(token)
        self.learned = learned
        text = self.stream.step(self.tokenizer, token)
        if text is not None:
            self._flush(text)

    def add_image(self, ids: Sequence[int], number: int) -> None:
        self._flush(BROKEN)
        text = f"image {number}: {len(ids)} token{'s' if len(ids) > 1 else ''}"
        self.pieces.append(TokenPiece(ids=tuple(ids), text=text, image=number, learned=False))

    def finish(self) -> tuple[TokenPiece, ...]:
        self._flush(BROKEN)
        return tuple(self.pieces)

    def _flush(self, text: str) -> None:
        if self.waiting:
            self.pieces.append(TokenPiece(ids=tuple(self.waiting), text=text, learned=self.learned))
            self.waiting = []


def shown_turns(conversation: Conversation) -> tuple[ShownTurn, ...]:
    """The turns of a conversation. Only an answer is learned."""
    return tuple(
        ShownTurn(role=turn.role, content=turn.content, learned=turn.role == "assistant" and turn.learned)
        for turn in conversation.turns
    )


def shown_images(
    processor: Processor, conversation: Conversation, images: Sequence[bytes], paths: Sequence[str] = ()
) -> tuple[ShownImage, ...]:
    """The first MOST_IMAGES images of a conversation, as thumbnails. `paths` are their names, if they are known."""
    shown, within = [], processor.of_sample(conversation.sizes)
    for number, (size, data) in enumerate(zip(conversation.sizes, images, strict=True)):
        if number == MOST_IMAGES:
            break
        shown.append(
            ShownImage(
                path=paths[number] if paths else "",
                width=size.width,
                height=size.height,
                tokens=within.image_tokens(size),
                thumbnail=thumbnail(data),
            )
        )
    return tuple(shown)
