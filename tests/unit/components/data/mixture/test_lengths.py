import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.mixture.lengths import Counter, LengthPool
from mantis.config.model_settings import ModelSettings
from mantis.dataset.mixture_reader import conversation_of
from mantis.models.family import IGNORE
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_names

TEXTS = ["What colour is the square in image 1? Red, blue, green, 17 of them.\n", "system user assistant\n\n"] * 4
TEXT = st.text(alphabet=st.sampled_from("ab 1\n?é<>|"), max_size=12)


@pytest.fixture(scope="module", params=family_names())
def counter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Counter:
    folder = str(tmp_path_factory.mktemp(request.param))
    specials = family(request.param).special_tokens()
    train_tokenizer(TEXTS, vocabulary=400, special_tokens=specials).save_pretrained(folder)
    model = ModelSettings(family=request.param, prompt="llama3")
    return Counter(model=model, tokenizer_folder=folder, context_length=200)


@st.composite
def rows(draw: Any) -> dict[str, Any]:
    contents = draw(st.lists(TEXT, min_size=2, max_size=8).filter(lambda texts: len(texts) % 2 == 0))
    marked = [
        "<image>".join(draw(st.lists(TEXT, min_size=1, max_size=3))) if at % 2 == 0 else text
        for at, text in enumerate(contents)
    ]
    images = "".join(marked).count("<image>")
    roles = ["user", "assistant"] * (len(marked) // 2)
    return {"id": "a", "roles": roles, "contents": marked, "widths": [48] * images, "heights": [32] * images}


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(rows(), min_size=1, max_size=6))
def test_counted_together_as_training_encodes_one_by_one(counter: Counter, batch: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(counter.tokenizer_folder)
    processor = family(counter.model.family).processor(tokenizer, counter.model)
    for row, length in zip(batch, counter.count(batch), strict=True):
        whole = processor.encode(conversation_of(row))
        assert length.whole == len(whole.input_ids)
        if not length.turns:
            first = processor.encode(conversation_of(row, turns=2))
            assert len(first.input_ids) > counter.context_length
            continue
        kept = processor.encode(conversation_of(row, turns=length.turns))
        assert length.tokens == len(kept.input_ids) <= counter.context_length
        assert length.targets == sum(label != IGNORE for label in kept.labels) > 0
        if length.turns < len(row["roles"]):
            more = processor.encode(conversation_of(row, turns=length.turns + 2))
            assert len(more.input_ids) > counter.context_length


def test_processes_count_as_this_one_does(counter: Counter, test_data: Path) -> None:
    raw = json.loads((test_data / "mantis-chat" / "train.json").read_text())[:40]
    batch = [
        {
            "id": row["id"],
            "roles": [turn["role"] for turn in row["conversation"]],
            "contents": [turn["content"] for turn in row["conversation"]],
            "widths": [48] * len(row["images"]),
            "heights": [48] * len(row["images"]),
        }
        for row in raw
        if sum(turn["content"].count("<image>") for turn in row["conversation"]) == len(row["images"])
    ]
    assert len(batch) > 30
    with LengthPool(2) as pool:
        counted = [length for _, lengths in pool.count(counter, [batch[:7], batch[7:]]) for length in lengths]
    assert counted == counter.count(batch)


@pytest.mark.parametrize("name", family_names())
def test_two_thousand_lengths_are_those_of_training(name: str, tmp_path: Path) -> None:
    """Images of any size, the family's own prompt: what preparation counts is what training packs."""
    kind, rng = family(name), random.Random(0)
    tokenizer = train_tokenizer(TEXTS, vocabulary=400, special_tokens=kind.special_tokens())
    tokenizer.save_pretrained(tmp_path)
    model = ModelSettings(family=name, prompt=kind.template)
    processor = kind.processor(tokenizer, model)
    counter = Counter(model=model, tokenizer_folder=str(tmp_path), context_length=100_000)
    batch = [random_row(rng) for _ in range(2000)]
    for row, length in zip(batch, counter.count(batch), strict=True):
        encoding = processor.encode(conversation_of(row))
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
    return {
        "id": "a",
        "roles": ["user", "assistant"] * 2,
        "contents": contents,
        "widths": [width for width, _ in sizes],
        "heights": [height for _, height in sizes],
    }
