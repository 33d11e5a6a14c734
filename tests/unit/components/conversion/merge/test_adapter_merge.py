"""Merged adapters equal peft's own merge up to the rounding of one product."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from components.conversion import shard_writer
from components.conversion.merge.adapter_merge import merge_adapters, parse_adapter_config
from components.conversion.zero.byte_sources import folder_sources
from components.conversion.zero.safetensors_index import read_safetensors
from components.conversion.zero.zero_checkpoint import Checkpoint
from mantis.errors import ConversionError
from tests.helpers.rounding import assert_merged_alike


class Layers(torch.nn.Module):
    """Rows that fill no whole block, one weight of many blocks, and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.small = torch.nn.Linear(24, 7)
        self.wide = torch.nn.Linear(96, 1000, bias=False)
        self.plain = torch.nn.Linear(5, 3)


def written(
    folder: Path, *, dora: bool, rslora: bool, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], bytes]:
    """Base and adapter as files in `folder`, peft's merge of them, and adapter_config.json."""
    torch.manual_seed(1)
    model = Layers().to(dtype)
    (folder / "base").mkdir(parents=True)
    (folder / "adapter").mkdir()
    save_file(model.state_dict(), folder / "base" / "model.safetensors")
    config = LoraConfig(r=8, lora_alpha=12, target_modules=["small", "wide"], use_dora=dora, use_rslora=rslora)
    peft = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn_like(weight), alpha=0.3)
    factors = {name: weight.detach().clone() for name, weight in peft.named_parameters() if "lora_" in name}
    save_file(factors, folder / "adapter" / "adapter.safetensors")
    config.save_pretrained(str(folder))
    text = (folder / "adapter_config.json").read_bytes()
    return factors, dict(peft.merge_and_unload().state_dict()), text


def checkpoint_of(folder: Path) -> Checkpoint:
    tensors = read_safetensors(folder_sources(folder / "adapter"), origin="adapter")
    return Checkpoint(
        stage=2, world_size=1, step=1, tensors=tensors, aliases={}, trained=frozenset(tensors), frozen=frozenset()
    )


def merge(folder: Path, text: bytes) -> dict[str, torch.Tensor]:
    base = read_safetensors(folder_sources(folder / "base"), origin="base")
    merged = merge_adapters(base, checkpoint_of(folder), parse_adapter_config(text, origin="here"))
    (folder / "out").mkdir()
    dtype = base["wide.weight"].dtype
    shard_writer.write_shards(shard_writer.plan_shards(merged.values(), dtype), folder / "out")
    return load_file(folder / "out" / "model.safetensors")


@pytest.mark.parametrize("block", [1 << 21, 96 * 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("dora", "rslora"), [(False, False), (False, True), (True, False)])
def test_weights_equal_those_of_pefts_merge(
    tmp_path: Path, dora: bool, rslora: bool, dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "BLOCK", block)
    factors, expected, text = written(tmp_path, dora=dora, rslora=rslora, dtype=dtype)
    assert all(factor.dtype == torch.float32 for factor in factors.values())
    found = merge(tmp_path, text)
    assert found["wide.weight"].dtype == dtype
    assert_merged_alike(found, expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "LOHA"}, "peft_type = 'LOHA' cannot be merged"),
        ({"alpha_pattern": {"small": 3}}, "alpha_pattern"),
        ({"bias": "all"}, "bias = 'all' cannot be merged"),
        ({"r": 4}, "do not form an adapter of rank 4"),
        ({"r": "many"}, "here: r: "),
        ({"use_dora": True}, "differ in lora_magnitude_vector"),
    ],
)
def test_an_adapter_that_is_not_merged_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    text = written(tmp_path, dora=False, rslora=False, dtype=torch.float32)[2]
    with pytest.raises(ConversionError, match=says):
        merge(tmp_path, json.dumps(json.loads(text) | change).encode())


def test_another_base_is_refused_by_the_tensor(tmp_path: Path) -> None:
    text = written(tmp_path, dora=False, rslora=False, dtype=torch.float32)[2]
    path = tmp_path / "base" / "model.safetensors"
    base = load_file(path)
    save_file(base | {"wide.weight": torch.zeros(999, 96)}, path)
    with pytest.raises(
        ConversionError, match=r"wide.weight was trained as \[1000, 96\]; in the base it is \[999, 96\]"
    ):
        merge(tmp_path, text)
    save_file({"small.weight": base["small.weight"]}, path)
    with pytest.raises(ConversionError, match="the base has no such tensor"):
        merge(tmp_path, text)


@pytest.mark.parametrize("keep", [3, 40, -1])
def test_a_truncated_base_is_named(tmp_path: Path, keep: int) -> None:
    written(tmp_path, dora=False, rslora=False, dtype=torch.float32)
    path = tmp_path / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConversionError, match=r"model\.safetensors"):
        read_safetensors(folder_sources(tmp_path / "base"), origin="base")
