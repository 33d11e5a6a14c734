"""Every family under ZeRO-3 on two ranks: DeepSpeed's own bits, and loadable without code of ours."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from components.conversion.convert_checkpoint import tensors_to_write
from components.conversion.shard_writer import plan_shards, write_shards
from components.conversion.zero.byte_sources import folder_sources
from components.conversion.zero.zero_checkpoint import read_checkpoint
from mantis.models.registry import family_names

TAG = "step-00000002"


@pytest.mark.parametrize("name", family_names())
def test_a_family_is_converted_bit_for_bit_and_loads(zero_checkpoints: Path, tmp_path: Path, name: str) -> None:
    folder = zero_checkpoints / f"family-{name}"
    zero = read_checkpoint(folder_sources(folder / TAG), origin=name)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    write_shards(plan_shards(tensors_to_write(zero, tmp_path), torch.float32), tmp_path)
    loaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = load_file(folder / "expected.safetensors")
    found = loaded.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert set(dict(loaded.named_parameters())) <= set(expected)
