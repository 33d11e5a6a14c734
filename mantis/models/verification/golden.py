"""Golden files of families: tokens, labels and pixels by transformers' processors and the official rules.

    python -m mantis.models.verification.golden [FAMILY ...]

writes golden/FAMILY.json into the family's folder. The hub's vocabularies are not at hand, so a family gets a small
synthetic one. It cuts text as the family's own does, which its reference.py names.
"""

import json
import math
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from mantis.config.model_settings import ModelSettings
from mantis.models.family import Encoding
from mantis.models.packed_batch import Pixels
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_names, family_spec
from mantis.models.verification.compare_tokens import WORDS, as_png, cases
from mantis.models.verification.reference_processor import Vocabulary, expected, saved_processor

TEXTS = [
    " ".join(WORDS),
    "\n".join(WORDS),
    "User:What\nAssistant:red, USER: OK! ASSISTANT: image 12: (image 1: <Image>",
] * 9
VOCABULARY_SIZE = 420
SPACE = "▁"
PIXELS_KEPT = 100  # of a case, beside the mean of all


def golden_settings(name: str) -> ModelSettings:
    """The settings under which a family's golden file is made."""
    return ModelSettings(family=name, prompt=family(name).template, image=family_spec(name).small_image)


def synthetic_tokenizer(kind: Vocabulary, special_tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of at most VOCABULARY_SIZE tokens that marks spaces as `kind` says."""
    if kind == "bytes":
        return train_tokenizer(TEXTS, vocabulary=VOCABULARY_SIZE, special_tokens=list(special_tokens))
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Metaspace()
    added = [AddedToken(token, special=True, normalized=False) for token in ["<unk>", "<pad>", *special_tokens]]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=VOCABULARY_SIZE, special_tokens=added, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", unk_token="<unk>", padding_side="left"
    )


def make_golden(name: str) -> dict[str, Any]:
    """The content of a family's golden file: its tokenizer, and for every case what `golden_case` gives."""
    reference = family_spec(name).reference()
    tokenizer = synthetic_tokenizer(reference.vocabulary, family(name).special_tokens())
    processor = family(name).processor(tokenizer, golden_settings(name))
    saved = saved_processor(processor)
    found = {}
    for case in cases():
        wanted = expected(reference, processor, saved, case.conversation, case.images)
        encoding = Encoding(input_ids=wanted.input_ids, labels=wanted.labels)
        found[case.conversation.id] = {"text": wanted.text, **golden_case(encoding, wanted.values.flatten().tolist())}
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())
    return {"transformers": transformers.__version__, "tokenizer": vocabulary, "cases": found}


def golden_case(encoding: Encoding, pixels: Sequence[float]) -> dict[str, Any]:
    """Tokens and labels as runs [value, length], and a hundred of the pixels with the mean of all."""
    return {
        "tokens": _runs(encoding.input_ids),
        "labels": _runs(encoding.labels),
        "pixels": _picked(pixels),
    }


def golden_tokenizer(golden: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer that a golden file holds."""
    backend = Tokenizer.from_str(json.dumps(golden["tokenizer"]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", padding_side="left")


def golden_differences(name: str) -> list[str]:
    """The cases in which a family's tokens, labels or pixels differ from its golden file.

    Raises:
        FileNotFoundError: the family's folder has no golden file.
    """
    golden = json.loads(family_spec(name).file(f"golden/{name}.json").read_text())
    processor = family(name).processor(golden_tokenizer(golden), golden_settings(name))
    wrong = [] if [case.conversation.id for case in cases()] == list(golden["cases"]) else ["the list of cases"]
    for case in cases():
        pixels: Pixels = processor.preprocess([as_png(image) for image in case.images])
        found = golden_case(processor.encode(case.conversation), pixels.values.flatten().tolist())
        wanted = golden["cases"].get(case.conversation.id, {"tokens": [], "labels": [], "pixels": []})
        wrong += [f"{case.conversation.id}: {what}" for what in ("tokens", "labels") if found[what] != wanted[what]]
        near = (
            math.isclose(*pair, rel_tol=1e-5, abs_tol=2e-5)
            for pair in zip(found["pixels"], wanted["pixels"], strict=False)
        )
        if len(found["pixels"]) != len(wanted["pixels"]) or not all(near):
            wrong.append(f"{case.conversation.id}: pixels")
    return wrong


def _runs(values: Sequence[int]) -> list[list[int]]:
    return [[value, len(list(same))] for value, same in groupby(values)]


def _picked(values: Sequence[float]) -> list[float]:
    chosen = values[:: max(1, len(values) // PIXELS_KEPT)]
    return [round(value, 6) for value in [*chosen, math.fsum(values) / max(1, len(values))]]


def main(*names: str) -> None:
    """Write the golden files of the families `names`, or of all."""
    for name in names or family_names():
        path = Path(str(family_spec(name).file("golden"))) / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(make_golden(name), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
