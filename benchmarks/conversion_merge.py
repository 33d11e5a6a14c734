"""Merge DoRA adapters into their base, with peft's merge_and_unload and save as peer."""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.conversion import FULL, QUICK, TAG, alternate, same_bits, summary, worker
from benchmarks.rows import Row, meets

logger = logging.getLogger(__name__)

TIME_GOAL, MEMORY_GOAL = ">=3", ">=4"
ADAPTER = "adapter"
# The published setting for LLaMA-3: r 128, alpha 256, every linear layer except the head.
RANK, ALPHA = 128, 256
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def merge(full: bool) -> Row:
    """Measure seconds from files to a saved model, and peak anonymous memory, with a warm page cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logger.info("Writing a base and its adapters")
        parameters = _write(folder, FULL if full else QUICK)
        with worker(merge_peer, folder) as peer, worker(merge_ours, folder) as ours:
            figures = alternate(peer, ours, folder, cold=False, label="merge")
        same_bits(folder)
    found = summary(*figures, TIME_GOAL)
    memory = found["peer_anonymous_gb"] / found["ours_anonymous_gb"]
    return Row(
        name="conversion.merge",
        peer=found["peer"],
        ours=found["ours"],
        ratio=found["ratio"],
        unit="s",
        goal=TIME_GOAL,
        details={
            "parameters": parameters,
            "peer": "peft merge_and_unload and save_pretrained, DoRA of rank 128 on a bf16 base",
            **found,
            "memory_ratio": memory,
            "memory_goal": MEMORY_GOAL,
            "memory_met": meets(memory, MEMORY_GOAL),
            "limit": "the product B A, which is computed once; base and factors are read once",
        },
    )


def _write(folder: Path, shape: dict[str, int]) -> int:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape["width"],
        num_hidden_layers=shape["layers"],
        intermediate_size=shape["mlp"],
        num_attention_heads=shape["width"] // 64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).bfloat16()
    model.save_pretrained(folder / TAG)
    parameters: int = sum(weight.numel() for weight in model.parameters())
    peft = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, use_dora=True, target_modules=TARGETS))
    with torch.no_grad():
        for weight_name, weight in peft.named_parameters():
            if "lora_B" in weight_name:
                weight.normal_(std=0.01)
    peft.save_pretrained(str(folder / ADAPTER))
    return parameters


def merge_peer(folder: Path) -> float:
    """Merge with peft, which checks nothing; return 0 seconds of checking."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / TAG, dtype="auto")
    PeftModel.from_pretrained(base, str(folder / ADAPTER)).merge_and_unload().save_pretrained(folder / "peer")
    return 0.0


def merge_ours(folder: Path) -> float:
    """Merge with this project, which hashes every tensor; return the seconds of reading the result back."""
    import torch

    from components.conversion.merge.adapter_merge import merge_adapters, parse_adapter_config
    from components.conversion.shard_writer import hash_written, plan_shards, write_shards
    from components.conversion.zero.byte_sources import folder_sources
    from components.conversion.zero.safetensors_index import read_safetensors
    from components.conversion.zero.zero_checkpoint import Checkpoint

    torch.set_num_threads(1)
    (folder / "ours").mkdir(exist_ok=True)
    base = read_safetensors(folder_sources(folder / TAG), origin=TAG)
    factors = read_safetensors(folder_sources(folder / ADAPTER), origin=ADAPTER)
    fields: dict[str, Any] = {"stage": 2, "world_size": 1, "step": 1, "aliases": {}, "frozen": frozenset()}
    adapter = Checkpoint(tensors=factors, trained=frozenset(factors), **fields)
    text = (folder / ADAPTER / "adapter_config.json").read_bytes()
    merged = merge_adapters(base, adapter, parse_adapter_config(text, origin=ADAPTER))
    shards = plan_shards(merged.values(), torch.bfloat16)
    digests = write_shards(shards, folder / "ours")
    start = time.perf_counter()
    if hash_written(shards, folder / "ours") != digests:
        raise RuntimeError("the written tensors differ from the merged ones")
    return time.perf_counter() - start
