"""Tokens and labels with the real vocabularies of LLaMA-3 and Mistral, beside those of the official code.

tests/golden/write_official_tokens.py made the expected values: it ran the official data set class.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from mantis.config.model_settings import ImageSettings, ModelSettings
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.models.registry import family
from mantis.models.weights.loading import base_tokenizer
from tests.golden.official_conversations import rows, runs
from tests.helpers.paths import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "official_tokens.json").read_text())
# chat template -> family, vocabulary, and settings with the official number of image tokens
CASES = {
    "llama3": ("llava-clip", "llama3", ImageSettings(size=336, patch_size=14)),
    "plain": ("llava-clip", "llama3", ImageSettings(size=336, patch_size=14)),
    "idefics2": ("idefics2", "mistral", ImageSettings(size=980, patch_size=14, latents=64)),
}

# The official code takes a separator inside a question for the end of the turn, and learns the rest of the question.
REPAIRED = {("llama3", "special tokens as text")}


def conversation(row: dict[str, Any]) -> Conversation:
    turns = tuple(Turn(role=turn["role"], content=turn["content"]) for turn in row["conversations"])
    return Conversation(id=row["id"], turns=turns, sizes=(ImageSize(width=40, height=30),) * row["images"])


def images_as_one(ids: list[int], image: int) -> list[bool]:
    """Which positions to keep so that the tokens of an image count once, as before the official model expands them."""
    kept = []
    for token, same in groupby(ids):
        length = len(list(same))
        kept += [True] + [token != image] * (length - 1)
    return kept


def after_first(labels: list[Any]) -> list[int]:
    """The labels without the first one."""
    each = [entry if isinstance(entry, list) else [entry, 1] for entry in labels]
    return [label for label, length in each for _ in range(length)][1:]


@pytest.mark.parametrize("template", CASES)
def test_tokens_and_labels_are_those_of_the_official_code(template: str, vocabularies: Path) -> None:
    name, vocabulary, image = CASES[template]
    kind = family(name)
    tokenizer = base_tokenizer(vocabularies / vocabulary, kind.special_tokens())
    processor = kind.processor(tokenizer, ModelSettings(family=name, prompt=template, image=image))
    mark = tokenizer.convert_tokens_to_ids("<image>")
    wrong = []
    for row in rows():
        if template == "plain" and (not row["images"] or len(row["conversations"]) > 2):
            continue  # the official code fails without images, and drops all exchanges but the first
        expected = GOLDEN[template][row["id"]]
        ours = processor.encode(conversation(row))
        kept = images_as_one(ours.input_ids, mark) if template != "idefics2" else [True] * len(ours.input_ids)
        tokens = [token for token, keep in zip(ours.input_ids, kept, strict=True) if keep]
        labels = [label for label, keep in zip(ours.labels, kept, strict=True) if keep]
        if runs(tokens) != expected["tokens"]:
            wrong.append(f"{row['id']}: tokens")
        # Nothing comes before the first token, so its label has no effect; stage 1 of the official code sets it.
        if after_first(runs(labels)) != after_first(expected["labels"]) and (template, row["id"]) not in REPAIRED:
            wrong.append(f"{row['id']}: labels")
    assert not wrong
