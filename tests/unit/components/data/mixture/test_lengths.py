import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.mixture.lengths import Counter, Length, LengthPool, Untrainable
from mantis.config.data_settings import Learn
from mantis.config.model_settings import ImageSettings, ModelSettings
from mantis.dataset.mixture_reader import conversation_of
from mantis.models.conversation import IMAGE_MARK, learned_from
from mantis.models.family import IGNORE
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from tests.helpers.tested_families import paper_first

TEXTS = ["What colour is the square in image 1? Red, blue, green, 17 of them.\n", "system user assistant\n\n"] * 4
TEXT = st.text(alphabet=st.sampled_from("ab 1\n?é<>|"), max_size=12)


@pytest.fixture(scope="module", params=paper_first())
def counter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Counter:
    folder = str(tmp_path_factory.mktemp(request.param))
    specials = family(request.param).special_tokens()
    train_tokenizer(TEXTS, vocabulary=400, special_tokens=specials).save_pretrained(folder)
    model = ModelSettings(family=request.param, prompt="llama3")
    return Counter(model=model, tokenizer_folder=folder, context_length=200, learn="all")


@st.composite
def rows(draw: Any) -> dict[str, Any]:
    contents = draw(st.lists(TEXT, min_size=2, max_size=8).filter(lambda texts: len(texts) % 2 == 0))
    marked = [
        "<image>".join(draw(st.lists(TEXT, min_size=1, max_size=3))) if at % 2 == 0 else text
        for at, text in enumerate(contents)
    ]
    images = "".join(marked).count("<image>")
    roles = ["user", "assistant"] * (len(marked) // 2)
    learned = draw(st.lists(st.booleans(), min_size=len(roles), max_size=len(roles)))
    return row_of(roles, marked, [(48, 32)] * images, learned)


def row_of(
    roles: list[str], contents: list[str], sizes: list[tuple[int, int]], learned: list[bool] | None = None
) -> dict[str, Any]:
    """A row of data.lance without its images."""
    return {
        "id": "a",
        "roles": roles,
        "contents": contents,
        "learned": learned or [True] * len(roles),
        "widths": [width for width, _ in sizes],
        "heights": [height for _, height in sizes],
    }


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(rows(), min_size=1, max_size=6))
def test_counted_together_as_training_encodes_one_by_one(counter: Counter, batch: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(counter.tokenizer_folder)
    processor = family(counter.model.family).processor(tokenizer, counter.model)
    for row, length in zip(batch, counter.count(batch), strict=True):
        whole = processor.encode(conversation_of(row))
        if isinstance(length, Untrainable):
            first = processor.encode(conversation_of(row, turns=2))
            too_long = len(first.input_ids) > counter.context_length
            assert length.reason == ("too-long" if too_long else "nothing-to-learn")
            if too_long:
                assert (length.value, length.threshold) == (str(len(whole.input_ids)), str(counter.context_length))
            continue
        assert length.whole == len(whole.input_ids)
        kept = processor.encode(conversation_of(row, turns=length.turns))
        assert length.tokens == len(kept.input_ids) <= counter.context_length
        assert length.targets == sum(label != IGNORE for label in kept.labels) > 0
        if length.turns < len(row["roles"]):
            more = processor.encode(conversation_of(row, turns=length.turns + 2))
            assert len(more.input_ids) > counter.context_length


def test_processes_count_as_this_one_does(counter: Counter, test_data: Path) -> None:
    raw = json.loads((test_data / "mantis-chat" / "train.json").read_text())[:40]
    batch = [
        row_of(
            [turn["role"] for turn in row["conversation"]],
            [turn["content"] for turn in row["conversation"]],
            [(48, 48)] * len(row["images"]),
        )
        for row in raw
        if sum(turn["content"].count("<image>") for turn in row["conversation"]) == len(row["images"])
    ]
    assert len(batch) > 30
    with LengthPool(2) as pool:
        counted = [length for _, lengths in pool.count(counter, [batch[:7], batch[7:]]) for length in lengths]
    assert counted == counter.count(batch)


@pytest.mark.parametrize("name", paper_first())
def test_two_thousand_lengths_are_those_of_training(name: str, tmp_path: Path) -> None:
    """Images of any size, the family's own prompt: what preparation counts is what training packs."""
    kind, rng = family(name), random.Random(0)
    tokenizer = train_tokenizer(TEXTS, vocabulary=400, special_tokens=kind.special_tokens())
    tokenizer.save_pretrained(tmp_path)
    model = ModelSettings(family=name, prompt=kind.template)
    processor = kind.processor(tokenizer, model)
    counter = Counter(model=model, tokenizer_folder=str(tmp_path), context_length=100_000, learn="all")
    batch = [random_row(rng) for _ in range(2000)]
    for row, length in zip(batch, counter.count(batch), strict=True):
        encoding = processor.encode(conversation_of(row))
        assert isinstance(length, Length)
        assert length.tokens == len(encoding.input_ids)
        assert length.targets == sum(label != IGNORE for label in encoding.labels)
        sizes = conversation_of(row).sizes
        assert length.patches == sum(processor.image_patches(size) for size in sizes)


def random_row(rng: random.Random) -> dict[str, Any]:
    images = rng.randint(0, 10)
    words = [rng.choice(TEXTS[0].split()) for _ in range(rng.randint(1, 12))]
    for _ in range(images):
        words.insert(rng.randint(0, len(words)), "<image>")
    sizes = [(rng.randint(1, 2000), rng.randint(1, 2000)) for _ in range(images)]
    contents = [" ".join(words), "red", "And then?", "blue " * rng.randint(1, 5)]
    return row_of(["user", "assistant"] * 2, contents, sizes)


def answers_of(labels: list[int]) -> list[list[int]]:
    """The stretches of targets, in order."""
    found: list[list[int]] = [[]]
    for label in labels:
        if label != IGNORE:
            found[-1].append(label)
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


@pytest.mark.parametrize("name", paper_first())
@pytest.mark.parametrize("learn", ["all", "last"])
def test_flags_and_learn_take_whole_answers_out_of_the_mask_and_change_no_token(
    name: str, learn: Learn, tmp_path: Path
) -> None:
    kind = family(name)
    tokenizer = train_tokenizer(TEXTS, vocabulary=400, special_tokens=kind.special_tokens())
    tokenizer.save_pretrained(tmp_path)
    for prompt in (kind.template, "compact"):
        model = ModelSettings(family=name, prompt=prompt)
        processor = kind.processor(tokenizer, model)
        counter = Counter(model=model, tokenizer_folder=str(tmp_path), context_length=100_000, learn=learn)
        contents = ["<image>one?", "red", "two?", "blue green", "three? <image>", "17", "four?", "of them"]
        roles, sizes = ["user", "assistant"] * 4, [(48, 48)] * 2
        whole = processor.encode(conversation_of(row_of(roles, contents, sizes)))
        every = answers_of(whole.labels)
        assert len(every) == 4
        for flags in itertools.product([True, False], repeat=4):
            learned = [flag for answer in flags for flag in (True, answer)]
            (length,) = counter.count([row_of(roles, contents, sizes, learned)])
            expected = [answer for answer, flag in zip(every, flags, strict=True) if flag]
            if not expected:
                said, wanted = "8 of 8 turns fit", "an answer that is learned"
                assert length == Untrainable(reason="nothing-to-learn", value=said, threshold=wanted)
                continue
            assert isinstance(length, Length)
            expected = expected[-1:] if learn == "last" else expected
            row = conversation_of(row_of(roles, contents, sizes, learned))
            seen = processor.encode(replace(row, turns=learned_from(row.turns, length.learned_from)))
            assert seen.input_ids == whole.input_ids
            assert answers_of(seen.labels) == expected
            assert length.targets == sum(map(len, expected))


@pytest.mark.parametrize("name", paper_first())
def test_a_text_with_the_image_token_is_refused_alone(name: str, tmp_path: Path) -> None:
    kind = family(name)
    tokenizer = train_tokenizer(TEXTS, vocabulary=400, special_tokens=kind.special_tokens())
    tokenizer.save_pretrained(tmp_path)
    model = ModelSettings(family=name, prompt=kind.template)
    counter = Counter(model=model, tokenizer_folder=str(tmp_path), context_length=100_000, learn="all")
    token = kind.processor(tokenizer, model).image_token
    if token == IMAGE_MARK:
        pytest.skip("its image token is the mark itself, which preparation counts")
    roles = ["user", "assistant"]
    good = row_of(roles, ["<image>who speaks?", "red"], [(48, 48)])
    texts = [[f"{token} who speaks?", "red"], ["<image>who?", f"red {token}"], [f"<image>a{token}b", "red"]]
    bad = [row_of(roles, text, [(48, 48)] * text[0].count("<image>")) for text in texts]
    counted = counter.count([good, bad[0], good, *bad[1:]])
    alone = counter.count([good])[0]
    assert [counted[0], counted[2]] == [alone, alone]
    for length in (counted[1], *counted[3:]):
        assert isinstance(length, Untrainable)
        assert (length.reason, length.value) == ("text-image-token", token)


def test_a_bound_of_a_sample_is_planned(tmp_path: Path) -> None:
    """The images of a row share the bound. A row that is cut to its first exchange has the bound for fewer images."""
    specials = family("qwen3-vl").special_tokens()
    train_tokenizer(TEXTS, vocabulary=400, special_tokens=specials).save_pretrained(tmp_path)
    row = row_of(["user", "assistant"] * 2, ["<image>", "a", "<image><image>", "b"], [(96, 96)] * 3)

    def counted(bound: int | None, context: int) -> Length:
        image = ImageSettings(size=96, patch_size=12, max_pixels_per_sample=bound)
        model = ModelSettings(family="qwen3-vl", prompt="qwen3-vl", image=image)
        counter = Counter(model=model, tokenizer_folder=str(tmp_path), context_length=context, learn="all")
        (length,) = counter.count([row])
        assert isinstance(length, Length)
        return length

    free, bound = counted(None, 500), counted(2 * 96 * 96, 500)
    assert (free.patches, bound.patches) == (3 * 8 * 8, 3 * 6 * 6)
    assert free.tokens - bound.tokens == 3 * (4 * 4 - 3 * 3)
    cut = counted(96 * 96, 41)
    assert (cut.turns, cut.images, cut.patches) == (2, 1, 8 * 8)
