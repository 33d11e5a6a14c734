"""A converted model in the store whose files were replaced: evaluation refuses code and runs none of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mantis.artifacts.manifest import Manifest
from mantis.errors import EvaluationError
from mantis.generation.decoding import Decoding
from mantis.generation.generator import load_generator
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.helpers.planted_code import Planted, plant_module


def pickled_instead(folder: Path, marker: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors | {"client": Planted(marker)}, folder / "pytorch_model.bin")


def pickle_named_safetensors(folder: Path, marker: Path) -> None:
    torch.save({"client": Planted(marker)}, folder / "model.safetensors")


@pytest.mark.parametrize("plant", [pickled_instead, pickle_named_safetensors])
def test_weights_that_run_code_are_refused(
    eval_run: Run,
    stored_model: Manifest,
    local_store: LocalStore,
    tmp_path: Path,
    plant: Callable[[Path, Path], None],
) -> None:
    marker = tmp_path / "it-was-run"
    plant(local_store.root / stored_model.key, marker)
    with pytest.raises(EvaluationError, match="holds no model that can be loaded"):
        load_generator(local_store.root / stored_model.key, eval_run.recipe.model, Decoding(max_new_tokens=8))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_modules_beside_the_model_are_not_imported(
    eval_run: Run, stored_model: Manifest, local_store: LocalStore, tmp_path: Path, name: str
) -> None:
    folder, marker = local_store.root / stored_model.key, tmp_path / "it-was-run"
    plant_module(folder, marker, name)
    load_generator(folder, eval_run.recipe.model, Decoding(max_new_tokens=8))
    assert not marker.exists()
