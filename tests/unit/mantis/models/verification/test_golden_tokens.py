"""Tokens, labels and pixels equal those of transformers' processors and the official rules: golden.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from mantis.models.registry import family, family_names, family_spec
from mantis.models.verification.compare_tokens import cases, differences
from mantis.models.verification.golden import golden_differences, golden_settings, golden_tokenizer, main, make_golden
from pipelines.cli.main import app
from tests.helpers.tested_families import paper_first


@pytest.fixture(params=family_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def golden(name: str) -> dict[str, Any]:
    return json.loads(family_spec(name).file(f"golden/{name}.json").read_text())


@pytest.fixture
def tokenizer(golden: dict[str, Any]) -> PreTrainedTokenizerFast:
    return golden_tokenizer(golden)


def test_every_case_is_as_transformers_and_the_official_rules_have_it(name: str, golden: dict[str, Any]) -> None:
    assert golden_differences(name) == []
    assert list(golden["cases"]) == [case.conversation.id for case in cases()]
    assert len(golden["cases"]) == 11


def test_the_golden_file_is_what_its_module_makes(name: str, golden: dict[str, Any]) -> None:
    """In the same version of transformers; the file says which."""
    made = make_golden(name)
    assert made["tokenizer"] == golden["tokenizer"]
    if made["transformers"] == golden["transformers"]:
        assert made == golden


@pytest.mark.parametrize("name", paper_first())
def test_a_wrong_token_label_or_pixel_is_found(
    name: str, golden: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden["cases"]["1 images"]["tokens"][0][0] += 1
    golden["cases"]["2 images"]["labels"][-1][0] += 1
    golden["cases"]["3 images"]["pixels"][0] += 0.001
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / f"{name}.json").write_text(json.dumps(golden))
    kind = type(family_spec(name))
    own = kind.file  # of the other files, such as chat templates, which are read once
    monkeypatch.setattr(kind, "file", lambda s, file: tmp_path / file if file.startswith("golden") else own(s, file))
    assert golden_differences(name) == ["1 images: tokens", "2 images: labels", "3 images: pixels"]
    main(name)
    assert golden_differences(name) == []


def test_the_tokenizers_differ_where_those_of_the_families_do(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Else the golden files would compare the same thing for every family."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("red,<s>red,", add_special_tokens=False))
    marked = [token for token in tokens if token.startswith(("▁", "Ġ"))]
    whole = {"bytes": 0, "space-everywhere": 2}
    assert len(marked) == whole[family_spec(name).reference().vocabulary]


@pytest.mark.parametrize("name", paper_first())
def test_a_slip_in_the_prompt_is_found(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    kind, reference = family(name), family_spec(name).reference()
    wrong = golden_settings(name).model_copy(update={"prompt": "compact"})
    found = list(differences(kind.processor(tokenizer, wrong), reference))
    assert any("tokens" in line and "ours" in line for line in found)
    assert list(differences(kind.processor(tokenizer, golden_settings(name)), reference)) == []


@pytest.mark.parametrize("name", paper_first())
def test_the_command_says_whether_a_folders_tokenizer_gives_the_same(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    settings = golden_settings(name)
    kind = family(name)
    processor = kind.processor(tokenizer, settings)
    kind.build(processor, seed=0).config.save_pretrained(tmp_path)
    processor.save(tmp_path)
    changes = {"family": name, "prompt": settings.prompt, "image": settings.image.model_dump()}
    given = [part for key, value in changes.items() for part in ("--set", f"model.{key}={json.dumps(value)}")]
    command = ["model", "verify", name, "--base", str(tmp_path), "--recipe", "demo", *given]
    same = CliRunner().invoke(app, command)
    assert same.exit_code == 0, same.output
    assert f"{name}: tokens, labels and pixels of 11 conversations are the same" in same.output
    other = CliRunner().invoke(app, [*command, "--set", "model.prompt=compact"])
    assert other.exit_code == 1
    assert "tokens" in other.output
