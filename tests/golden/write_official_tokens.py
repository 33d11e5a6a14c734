"""Runs the official data set class on official_conversations.py and writes official_tokens.json.

    PYTHONPATH=OFFICIAL python tests/golden/write_official_tokens.py VOCABULARIES

OFFICIAL is a checkout of TIGER-AI-Lab/Mantis at commit f3a3192, in an environment with transformers 4.41.2, datasets,
av, decord and torch. VOCABULARIES holds `llama3` and `mistral`, as tests/fixtures/vocabularies.py makes them.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from official_conversations import dump, rows, runs  # type: ignore[import-not-found]

FAMILIES = {"llama3": "llama_3", "plain": "plain", "idefics2": "idefics_2"}


def main(vocabularies: str) -> None:
    """Write the golden file beside this program."""
    import numpy as np
    from PIL import Image

    data = importlib.import_module("mantis.train.data")
    templates = importlib.import_module("mantis.models.conversation").conv_templates
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(folder / "0.png")
        table = [row | {"images": ["0.png"] * row["images"]} for row in rows()]
        (folder / "train.json").write_text(json.dumps(table))
        for family, template in FAMILIES.items():
            processor = official_processor(family, Path(vocabularies))
            data.set_default_image_token_id(processor.tokenizer.convert_tokens_to_ids("<image>"))
            chats = data.ChatDataset(
                processor, str(folder / "train.json"), "local", "golden", "train", 8192, templates[template]
            )
            cases = {}
            for at, row in enumerate(table):
                if family == "plain" and not row["images"]:
                    continue  # the official code fails there
                encoding = chats.getitem(at)
                cases[row["id"]] = {
                    "tokens": runs(encoding["input_ids"][0].tolist()),
                    "labels": runs(encoding["labels"][0].tolist()),
                }
            found[family] = cases
    (Path(__file__).parent / "official_tokens.json").write_text(dump(found))


def official_processor(family: str, vocabularies: Path) -> Any:
    """The processor of the official code for this family."""
    from transformers import (
        CLIPImageProcessor,
        Idefics2ImageProcessor,
        Idefics2Processor,
        LlamaTokenizerFast,
        PreTrainedTokenizerFast,
    )

    if family == "idefics2":
        tokenizer = LlamaTokenizerFast.from_pretrained(str(vocabularies / "mistral"))
        return Idefics2Processor(Idefics2ImageProcessor(do_image_splitting=False), tokenizer, image_seq_len=64)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(vocabularies / "llama3"))
    llava = importlib.import_module("mantis.models.mllava.processing_llava")
    return llava.MLlavaProcessor(CLIPImageProcessor(size={"shortest_edge": 48}, crop_size=48), tokenizer)


if __name__ == "__main__":
    main(*sys.argv[1:])
