"""The loss mask of a conversation, by tokens that were written by hand."""

import pytest

from mantis.config.model_settings import ModelSettings
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.models.family import IGNORE, Encoding, Processor
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_names, family_spec
from mantis.showing.sample_view import MOST_IMAGES, shown_images, shown_tokens, shown_turns
from mantis.showing.shown_data import ShownTokens
from tests.fixtures.models import MakeJpegs

SIZE = ImageSize(width=48, height=48)
# Two exchanges. The second answer is not learned.
CONVERSATION = Conversation(
    id="by hand",
    system="Be kind.",
    turns=(
        Turn(role="user", content="<image>What?"),
        Turn(role="assistant", content="Red."),
        Turn(role="user", content="And <image>?"),
        Turn(role="assistant", content="Blue", learned=False),
    ),
    sizes=(SIZE, SIZE),
)
FAKE, HEADER, END_HEADER, EOT = "<fake_token_around_image>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"


def chars(text: str) -> list[str]:
    """One token for each character: the tokenizer of these tests has no merges."""
    return list(text)


def idefics(end: str, image: str) -> list[tuple[bool, list[str]]]:
    """Tokens by whether they are learned. This template has no place for a system text."""
    return [
        (False, ["<s>", *chars("User:"), FAKE, image.format(1), FAKE, *chars("What?"), end]),
        (True, [*chars("\nAssistant:Red."), end]),
        (
            False,
            [
                *chars("\nUser:And "),
                FAKE,
                image.format(2),
                FAKE,
                *chars("?"),
                end,
                *chars("\nAssistant:Blue"),
                end,
                "\n",
            ],
        ),
    ]


LLAMA3 = [
    (False, ["<|begin_of_text|>", HEADER, *chars("system"), END_HEADER, *chars("\n\nBe kind."), EOT]),
    (False, [HEADER, *chars("user"), END_HEADER, *chars("\n\n(image 1: <Image>"), "image 1: 16 tokens"]),
    (False, [*chars("</Image>)What?"), EOT]),
    (True, [HEADER, *chars("assistant"), END_HEADER, *chars("\n\nRed."), EOT]),
    (False, [HEADER, *chars("user"), END_HEADER, *chars("\n\nAnd (image 2: <Image>"), "image 2: 16 tokens"]),
    (False, [*chars("</Image>)?"), EOT, HEADER, *chars("assistant"), END_HEADER, *chars("\n\nBlue"), EOT]),
]
FUYU = [
    (False, ["<s>", *chars("Be kind.\nUSER: image 0: "), "image 1: 9 tokens", *chars("What?"), "<0x04>"]),
    (True, [*chars("ASSISTANT: Red."), "|ENDOFTEXT|"]),
    (False, [*chars("USER: And image 1: "), "image 2: 9 tokens", *chars("?"), "<0x04>"]),
    (False, [*chars("ASSISTANT: Blue"), "|ENDOFTEXT|"]),
]
START, END = "<|im_start|>", "<|im_end|>"


def chatml(*image: str) -> list[tuple[bool, list[str]]]:
    """Qwen's text, with `image` in place of an image. The header of an answer is not learned."""

    def named(number: int) -> list[str]:
        return [part.format(number) for part in image]

    return [
        (False, [START, *chars("system\nBe kind."), END, "\n", START, *chars("user\n"), *named(1)]),
        (False, [*chars("What?"), END, "\n", START, *chars("assistant\n")]),
        (True, [*chars("Red."), END]),
        (False, ["\n", START, *chars("user\nAnd "), *named(2), *chars("?"), END, "\n", START]),
        (False, [*chars("assistant\nBlue"), END, "\n"]),
    ]


QWEN_IMAGE = ["<|vision_start|>", "image {}: 16 tokens", "<|vision_end|>"]


def tiled(first: str) -> list[tuple[bool, list[str]]]:
    """The text of Idefics3, which SmolVLM shares but for its `first` token."""
    return [
        (False, [first, *chars("System: Be kind."), "<end_of_utterance>", "\n", *chars("User:")]),
        (False, ["image 1: 34 tokens", *chars("What?"), "<end_of_utterance>", *chars("\nAssistant:")]),
        (True, [*chars(" Red."), "<end_of_utterance>"]),
        (False, [*chars("\nUser: And "), "image 2: 34 tokens", *chars("?"), "<end_of_utterance>"]),
        (False, [*chars("\nAssistant: Blue"), "<end_of_utterance>", "\n"]),
    ]


BY_HAND = {
    "flamingo": idefics("<|endofchunk|>", "image {}: 1 token"),
    "fuyu": FUYU,
    "idefics3": tiled("<|begin_of_text|>"),
    "idefics2": idefics("<end_of_utterance>", "image {}: 5 tokens"),
    "internvl": chatml("image {}: 6 tokens", "\n"),
    "llava-clip": LLAMA3,
    "llava-qwen2": chatml("image {}: 16 tokens"),
    "llava-siglip": LLAMA3,
    "smolvlm": tiled("<|im_start|>"),
    "qwen2_5-vl": chatml(*QWEN_IMAGE),
    "qwen3-vl": chatml(*QWEN_IMAGE),
}


def processor_of(name: str) -> Processor:
    kind = family(name)
    tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())
    settings = ModelSettings(family=name, prompt=kind.template, image=family_spec(name).small_image)
    return kind.processor(tokenizer, settings)


def seen(processor: Processor, conversation: Conversation) -> ShownTokens:
    encoding = processor.encode(conversation)
    return shown_tokens(processor, conversation, encoding, whole=len(encoding.input_ids))


def test_the_tokens_of_every_family_were_written_by_hand() -> None:
    assert set(BY_HAND) == set(family_names())


@pytest.mark.parametrize("name", BY_HAND)
def test_the_loss_mask_is_that_of_tokens_written_by_hand(name: str) -> None:
    processor = processor_of(name)
    expected = [(text, learned) for learned, texts in BY_HAND[name] for text in texts]
    found = seen(processor, CONVERSATION)
    pieces = [(piece.text, piece.learned) for piece in found.pieces]
    assert pieces == expected
    encoding = processor.encode(CONVERSATION)
    assert [token for piece in found.pieces for token in piece.ids] == encoding.input_ids
    assert found.count == len(encoding.input_ids)
    assert (
        found.targets
        == sum(label != IGNORE for label in encoding.labels)
        == sum(len(texts) for learned, texts in BY_HAND[name] if learned)
    )


@pytest.mark.parametrize("name", family_names())
def test_an_image_has_the_tokens_that_the_processor_gives_it(name: str) -> None:
    processor = processor_of(name)
    images = [piece for piece in seen(processor, CONVERSATION).pieces if piece.image]
    assert [piece.image for piece in images] == [1, 2]
    assert [list(piece.ids) for piece in images] == [processor.image_ids(SIZE)] * 2
    assert not any(piece.learned for piece in images)


def test_a_character_of_several_tokens_is_one_piece() -> None:
    processor = processor_of("llava-clip")
    turns = (Turn(role="user", content="é漢👍🏽"), Turn(role="assistant", content="ø"))
    found = seen(processor, Conversation(id="x", turns=turns, sizes=()))
    texts = [piece.text for piece in found.pieces]
    assert [len(piece.ids) for piece in found.pieces if piece.text in "é漢👍🏽ø"] == [2, 3, 4, 4, 2]
    assert "\ufffd" not in "".join(texts)
    assert [piece.learned for piece in found.pieces if piece.text == "ø"] == [True]


def test_the_first_token_of_a_sample_is_no_target() -> None:
    processor = processor_of("llava-clip")
    conversation = Conversation(id="x", turns=(), sizes=())
    ids = processor.tokenizer.convert_tokens_to_ids(["a", "b"])
    found = shown_tokens(processor, conversation, Encoding(input_ids=ids, labels=ids), whole=2)
    assert [(piece.text, piece.learned) for piece in found.pieces] == [("a", False), ("b", True)]


def test_tokens_that_are_no_character_are_shown_as_broken() -> None:
    processor = processor_of("llava-clip")
    [first, *_] = processor.tokenizer.encode("é", add_special_tokens=False)
    conversation = Conversation(id="x", turns=(), sizes=())
    found = shown_tokens(processor, conversation, Encoding(input_ids=[first], labels=[IGNORE]), whole=1)
    assert [(piece.text, piece.ids) for piece in found.pieces] == [("\ufffd", (first,))]


def test_turns_and_images_of_a_conversation(make_jpegs: MakeJpegs) -> None:
    processor = processor_of("llava-clip")
    assert [(turn.role, turn.learned) for turn in shown_turns(CONVERSATION)] == [
        ("user", False), ("assistant", True), ("user", False), ("assistant", False),
    ]  # fmt: skip
    images = shown_images(processor, CONVERSATION, make_jpegs([(48, 48), (48, 48)]), ["a.jpg", "b.jpg"])
    assert [(image.path, image.width, image.tokens) for image in images] == [("a.jpg", 48, 16), ("b.jpg", 48, 16)]
    assert all(image.thumbnail.startswith("data:image/jpeg;base64,") for image in images)
    many = Conversation(id="x", turns=(), sizes=(SIZE,) * (MOST_IMAGES + 1))
    assert len(shown_images(processor, many, make_jpegs([(48, 48)]) * (MOST_IMAGES + 1))) == MOST_IMAGES
