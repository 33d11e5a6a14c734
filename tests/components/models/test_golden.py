"""Tokens, labels and pixels against what transformers' own processors and the official rules gave: make_golden.py."""

import importlib.util
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from mantis.models.registry import FAMILIES, family
from mantis.models.verification.compare_tokens import as_png, cases, differences
from pipelines.cli.main import app

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("make_golden", HERE / "make_golden.py")
make_golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_golden)


@pytest.fixture(params=sorted(FAMILIES))
def name(request):
    return request.param


@pytest.fixture
def golden(name):
    return json.loads((HERE / "golden" / f"{name}.json").read_text())


@pytest.fixture
def tokenizer(golden):
    backend = Tokenizer.from_str(json.dumps(golden["tokenizer"]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>")


def test_every_case_is_as_transformers_and_the_official_rules_have_it(name, golden, tokenizer):
    kind, settings = family(name), make_golden.settings_of(name)
    seen = []
    for case in cases():
        wanted = golden["cases"][case.conversation.id]
        found = kind.encode(case.conversation, tokenizer, settings)
        assert make_golden.runs(found.input_ids) == wanted["tokens"], case.conversation.id
        assert make_golden.runs(found.labels) == wanted["labels"], case.conversation.id
        pixels = kind.preprocess([as_png(image) for image in case.images], settings).values
        assert make_golden.picked(pixels.flatten().tolist()) == pytest.approx(wanted["pixels"], abs=2e-5, rel=1e-5)
        seen.append(case.conversation.id)
    assert seen == list(golden["cases"])
    assert len(seen) == 11


def test_the_tokenizers_differ_where_those_of_the_families_do(golden, name, tokenizer):
    """Else the golden files would compare the same thing five times."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("red,<s>red,", add_special_tokens=False))
    marked = [token for token in tokens if token.startswith(("▁", "Ġ"))]
    whole = {"llava-clip": 0, "llava-siglip": 0, "idefics2": 1, "flamingo": 2, "fuyu": 2}
    assert len(marked) == whole[name]


def test_a_slip_in_the_prompt_is_found(name, tokenizer):
    settings = make_golden.settings_of(name).model_copy(update={"prompt": "compact"})
    found = list(differences(family(name), tokenizer, settings))
    assert any("tokens" in line and "ours" in line for line in found)
    assert list(differences(family(name), tokenizer, make_golden.settings_of(name))) == []


def test_the_command_says_whether_a_folders_tokenizer_gives_the_same(name, tokenizer, tmp_path):
    settings = make_golden.settings_of(name)
    kind = family(name)
    kind.build(tokenizer, settings, seed=0).config.save_pretrained(tmp_path)
    kind.save_processor(tokenizer, settings, tmp_path)
    changes = {"family": name, "prompt": settings.prompt, "image": settings.image.model_dump()}
    given = [part for key, value in changes.items() for part in ("--set", f"model.{key}={json.dumps(value)}")]
    command = ["model", "verify", name, "--base", str(tmp_path), "--recipe", "demo", *given]
    same = CliRunner().invoke(app, command)
    assert same.exit_code == 0, same.output
    assert f"{name}: tokens, labels and pixels of 11 conversations are the same" in same.output
    other = CliRunner().invoke(app, [*command, "--set", "model.prompt=compact"])
    assert other.exit_code == 1
    assert "tokens" in other.output
