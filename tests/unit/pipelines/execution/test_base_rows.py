"""Rows of embedding and head against the tokenizer, before anything is computed."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mantis.config.model_settings import ModelSettings
from mantis.errors import ConfigError, InputError
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from pipelines.execution.checks.base_rows import BaseRows, check_base_rows, rows_of
from pipelines.execution.resolve import resolve_run
from tests.fixtures.published_layouts import published_layout

# family -> rows of the published base, and the tokens that get new ones
PUBLISHED = {
    "llava-clip": (128_256, ["<image>", "<|pad|>"]),
    "llava-siglip": (128_256, ["<image>", "<|pad|>"]),
    "idefics2": (32_003, ["<|pad|>"]),
    "flamingo": (32_002, ["<|endofchunk|>", "<|pad|>"]),
    "fuyu": (262_144, ["|IMAGE|", "|ENDOFIMAGE|", "<|pad|>"]),
}

QWEN = "qwen3-vl"

Layout = Callable[[str], ModelSettings]


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The changes of a recipe for each family's published layout."""
    folder = tmp_path_factory.mktemp("published")
    return {name: published_layout(name, folder / name) for name in (*PUBLISHED, QWEN)}


def settings_of(changes: dict[str, str]) -> ModelSettings:
    return resolve_run("demo", changes, "")[1].model


@pytest.mark.parametrize("name", PUBLISHED)
def test_new_rows_are_named_before_anything_is_computed(
    name: str, layouts: dict[str, dict[str, str]], local_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows, new = PUBLISHED[name]
    assert rows_of(open_store(layouts[name]["model.base"])) == BaseRows(embedding=rows, head=rows)
    check_base_rows(local_store, settings_of(layouts[name]))
    assert f"embedding and head get {len(new)} new rows, for {', '.join(new)}" in caplog.text
    assert "tokens without a row" not in caplog.text


def test_a_base_with_more_rows_than_tokens_gets_none(
    layouts: dict[str, dict[str, str]], local_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Qwen-VL has rows to spare behind its tokens, and every token of the data and for padding."""
    caplog.set_level(logging.INFO)
    assert rows_of(open_store(layouts[QWEN]["model.base"])) == BaseRows(embedding=151_936, head=151_936)
    check_base_rows(local_store, settings_of(layouts[QWEN]))
    assert "new rows" not in caplog.text


@pytest.fixture
def copied(layouts: dict[str, dict[str, str]], tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """A copy of a family's base that a test may change."""

    def copy(name: str) -> dict[str, str]:
        shutil.copytree(layouts[name]["model.base"], tmp_path / "copy")
        return layouts[name] | {"model.base": str(tmp_path / "copy")}

    return copy


def change_tensor(folder: str, name: str, rows: int) -> None:
    path = Path(folder) / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = tensors[name][:rows].clone()
    save_file(tensors, path, {"format": "pt"})


def test_a_head_with_fewer_rows_than_the_embedding_is_refused(
    copied: Callable[[str], dict[str, str]], local_store: LocalStore
) -> None:
    changes = copied("idefics2")
    change_tensor(changes["model.base"], "lm_head.weight", 32_000)
    with pytest.raises(ConfigError, match=r"needs 32,004 rows\. The embedding has 32,003, the head 32,000"):
        check_base_rows(local_store, settings_of(changes))


def test_a_tokenizer_of_another_language_model_is_refused(
    copied: Callable[[str], dict[str, str]], layouts: dict[str, dict[str, str]], local_store: LocalStore
) -> None:
    changes = copied("llava-clip")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(layouts["idefics2"]["model.base"]) / file, changes["model.base"])
    with pytest.raises(ConfigError, match=r"its tokenizer has 32,0\d\d tokens, its embedding 128,256 rows"):
        check_base_rows(local_store, settings_of(changes))


def test_a_token_of_the_base_without_a_row_is_a_warning(
    copied: Callable[[str], dict[str, str]], local_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    changes = copied("idefics2")
    path = Path(changes["model.base"]) / "tokenizer.json"
    stored: dict[str, Any] = json.loads(path.read_text())
    stored["added_tokens"].append(stored["added_tokens"][-1] | {"id": 32_003, "content": "<mine>"})
    path.write_text(json.dumps(stored))
    check_base_rows(local_store, settings_of(changes))
    assert "tokenizer has 1 tokens without a row, such as <mine>" in caplog.text


def test_a_base_without_a_tokenizer_is_refused(
    copied: Callable[[str], dict[str, str]], local_store: LocalStore
) -> None:
    changes = copied("idefics2")
    (Path(changes["model.base"]) / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="holds no tokenizer"):
        check_base_rows(local_store, settings_of(changes))


def test_pickled_weights_are_counted_by_their_configuration(
    copied: Callable[[str], dict[str, str]], local_store: LocalStore
) -> None:
    for name, rows in (("flamingo", 32_002), ("fuyu", 262_144)):
        folder = Path(copied(name)["model.base"])
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
        assert rows_of(open_store(str(folder))) == BaseRows(embedding=rows, head=rows)
        shutil.rmtree(folder)


def test_a_model_from_scratch_has_nothing_to_check(local_store: LocalStore) -> None:
    check_base_rows(local_store, resolve_run("demo", {}, "")[1].model)
