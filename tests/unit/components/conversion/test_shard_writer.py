"""The index of several shards, as transformers writes it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from components.conversion.shard_writer import plan_shards, write_shards
from components.conversion.zero.byte_sources import folder_sources
from components.conversion.zero.safetensors_index import read_safetensors


def test_the_index_names_the_shard_of_each_tensor_and_the_bytes_of_all(tmp_path: Path) -> None:
    """`total_size` counts the bytes of tensors alone, without the headers of the files."""
    tensors = {"a": torch.arange(30.0).reshape(5, 6), "b": torch.arange(7), "c": torch.ones(9), "d": torch.ones(2, 2)}
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    read = read_safetensors(folder_sources(tmp_path / "in"), origin="here")
    write_shards(plan_shards(read.values(), torch.bfloat16, max_bytes=64), tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = {path.name: load_file(path) for path in (tmp_path / "out").glob("*.safetensors")}
    assert len(shards) > 1
    found = {name: tensor for shard in shards.values() for name, tensor in shard.items()}
    assert found.keys() == tensors.keys()
    assert all(index["weight_map"][name] == shard for shard, held in shards.items() for name in held)
    assert index["metadata"] == {"total_size": 2 * (30 + 9 + 4) + 8 * 7}
