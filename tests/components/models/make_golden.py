"""Writes golden/FAMILY.json: what transformers' processors and the official rules give for the cases of verifying.py.

    python tests/components/models/make_golden.py

The hub's vocabularies are not at hand, so each family gets a synthetic one that cuts text as its own does: LLaMA-3's
bytes and words; spaces as a letter of their own, which the beginning of a text (Idefics 2), or of every stretch between
special tokens (Idefics 1, Fuyu), gets too.
"""

import json
import math
import sys
from itertools import groupby
from pathlib import Path

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mantis.config.recipe import ImageSettings, ModelSettings
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import FAMILIES, family
from mantis.models.verification.compare_tokens import WORDS, cases
from mantis.models.verification.reference_processor import expected, processor_of

GOLDEN = Path(__file__).with_name("golden")
TEXTS = [
    " ".join(WORDS),
    "\n".join(WORDS),
    "User:What\nAssistant:red, USER: OK! ASSISTANT: image 12: (image 1: <Image>",
] * 9
VOCABULARY = 420
SPACE = "▁"
IMAGES = {
    "llava-clip": ImageSettings(size=48, patch_size=12),
    "llava-siglip": ImageSettings(size=48, patch_size=12),
    "idefics2": ImageSettings(size=98, patch_size=14, latents=5),
    "fuyu": ImageSettings(size=120, width=240, patch_size=30),
    "flamingo": ImageSettings(size=48, patch_size=12),
}


def settings_of(name: str) -> ModelSettings:
    return ModelSettings(family=name, prompt=family(name).prompt, image=IMAGES[name])


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    specials = family(name).special_tokens()
    if name.startswith("llava"):
        return train_tokenizer(TEXTS, vocabulary=VOCABULARY, special_tokens=specials)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if name == "idefics2":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Metaspace()
    added = [AddedToken(token, special=True, normalized=False) for token in ["<unk>", "<pad>", *specials]]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=added, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", unk_token="<unk>", padding_side="left"
    )


def runs(values: list[int]) -> list[list[int]]:
    """[value, how often in a row]..."""
    return [[value, len(list(same))] for value, same in groupby(values)]


def picked(values: list[float]) -> list[float]:
    """A hundred of them, and the mean of all."""
    chosen = values[:: max(1, len(values) // 100)]
    return [round(value, 6) for value in [*chosen, math.fsum(values) / max(1, len(values))]]


def golden(name: str) -> dict:
    tokenizer, settings = tokenizer_of(name), settings_of(name)
    processor = processor_of(family(name), tokenizer, settings)
    found = {}
    for case in cases():
        wanted = expected(family(name), case.conversation, case.images, processor, settings)
        found[case.conversation.id] = {
            "text": wanted.text,
            "tokens": runs(wanted.input_ids),
            "labels": runs(wanted.labels),
            "pixels": picked(wanted.values.flatten().tolist()),
        }
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())
    return {"transformers": transformers.__version__, "tokenizer": vocabulary, "cases": found}


def main(*names: str) -> None:
    for name in names or FAMILIES:
        text = json.dumps(golden(name), ensure_ascii=False)
        (GOLDEN / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
