"""`mantis model verify`: a bare tokenizer folder, no tower, and the result of the official code."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from transformers import LlamaTokenizerFast
from typer.testing import CliRunner

from mantis.config.model_settings import ModelSettings
from mantis.models.registry import family, family_spec
from mantis.models.verification.compare_tokens import differences
from mantis.models.verification.reference_processor import expected, official_tokenizer, saved_processor
from mantis.models.weights.loading import base_tokenizer
from pipelines.cli.main import app
from tests.fixtures.published_layouts import LLAMA_PIECES, SENTENCE_PIECE, tokenizer_json, write_tokenizer
from tests.golden.official_conversations import rows, runs
from tests.integration.mantis.models.test_official_tokens import CASES, GOLDEN, after_first, conversation, images_as_one

# family -> the vocabulary that it is verified on: its base's own, or the nearest one that a registry has
REAL = {
    "llava-clip": "llama3",
    "llava-siglip": "llama3",
    "idefics2": "mistral",
    "flamingo": "mistral",
    "fuyu": "mistral",
    "llava-qwen2": "qwen2_5",
    "qwen2_5-vl": "qwen2_5",
    "qwen3-vl": "qwen3",
    "internvl": "qwen3",
}
NOT_OFFICIAL = {("llama3", "special tokens as text")}  # as in test_official_tokens.py


def verify(name: str, folder: Path, store: Path, *more: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["model", "verify", name, "--base", str(folder), "--store", store.as_uri(), *more])
    return done.exit_code, done.output


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with a tokenizer and nothing else."""
    stored = tokenizer_json("space-everywhere", pieces=LLAMA_PIECES, inside=SENTENCE_PIECE, behind=["<image>"])
    write_tokenizer(tmp_path / "bare", stored)
    return tmp_path / "bare"


def test_a_bare_tokenizer_is_verified_without_weights(bare: Path, tmp_path: Path) -> None:
    """The store is empty: neither base nor tower was fetched."""
    assert sorted(path.name for path in bare.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    code, said = verify("llava-siglip", bare, tmp_path / "store")
    assert (code, "llava-siglip: tokens, labels and pixels of 11 conversations are the same" in said) == (0, True)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    code, said = verify("idefics2", tmp_path, tmp_path / "store")
    assert code == 1
    assert "holds no tokenizer" in said


@pytest.mark.parametrize("name", REAL)
def test_real_vocabularies_pass(name: str, vocabularies: Path, tmp_path: Path) -> None:
    image = family_spec(name).small_image.model_dump_json(exclude_defaults=True)
    code, said = verify(name, vocabularies / REAL[name], tmp_path / "store", "--set", f"model.image={image}")
    assert (code, "are the same" in said) == (0, True), said


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_vocabularies_pass_at_the_sizes_of_the_paper(name: str, vocabularies: Path, tmp_path: Path) -> None:
    """The images have the size that the family's recipe gives them."""
    code, said = verify(name, vocabularies / REAL[name], tmp_path / "store")
    assert (code, "are the same" in said) == (0, True), said


@pytest.mark.parametrize("template", ["llama3", "idefics2"])
def test_the_reference_gives_the_tokens_of_the_official_code(template: str, vocabularies: Path) -> None:
    """It reads the tokenizer's file by the library tokenizers alone, and no rule of this project."""
    name, vocabulary, image = CASES[template]
    kind, reference = family(name), family_spec(name).reference()
    official = official_tokenizer(vocabularies / vocabulary, kind.special_tokens())
    tokenizer = base_tokenizer(vocabularies / vocabulary, kind.special_tokens())
    processor = kind.processor(tokenizer, ModelSettings(family=name, prompt=template, image=image))
    saved = saved_processor(processor, official)
    mark = tokenizer.convert_tokens_to_ids("<image>")
    wrong = []
    for row in rows():
        asked = conversation(row)
        images = [Image.new("RGB", (size.width, size.height), "red") for size in asked.sizes]
        found = expected(reference, processor, saved, asked, images)
        kept = images_as_one(found.input_ids, mark) if template != "idefics2" else [True] * len(found.input_ids)
        tokens = [token for token, keep in zip(found.input_ids, kept, strict=True) if keep]
        labels = [label for label, keep in zip(found.labels, kept, strict=True) if keep]
        golden = GOLDEN[template][row["id"]]
        if runs(tokens) != golden["tokens"]:
            wrong.append(f"{row['id']}: tokens")
        if after_first(runs(labels)) != after_first(golden["labels"]):
            wrong.append(f"{row['id']}: labels")
    assert not wrong


def test_a_tokenizer_that_was_read_in_another_way_is_found(vocabularies: Path, tmp_path: Path) -> None:
    """LlamaTokenizerFast of transformers 5 rebuilds the file, and cuts text beside images differently."""
    shutil.copytree(vocabularies / "mistral", tmp_path / "copy")
    described = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    described |= {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    (tmp_path / "copy" / "tokenizer_config.json").write_text(json.dumps(described))
    kind = family("idefics2")
    rebuilt = LlamaTokenizerFast.from_pretrained(tmp_path / "copy")
    settings = ModelSettings(family="idefics2", prompt="idefics2", image=family_spec("idefics2").small_image)
    official = official_tokenizer(tmp_path / "copy", kind.special_tokens())
    reference = family_spec("idefics2").reference()
    assert list(differences(kind.processor(rebuilt, settings), reference, official=official))
    ours = base_tokenizer(tmp_path / "copy", kind.special_tokens())
    assert not list(differences(kind.processor(ours, settings), reference, official=official))
