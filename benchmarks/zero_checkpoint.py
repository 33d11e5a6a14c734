"""Write ZeRO-3 checkpoints of any size in DeepSpeed's format, without running its ranks.

tests/integration/benchmarks/test_zero_checkpoint.py compares this format with checkpoints that DeepSpeed wrote.
"""

import math
from collections import OrderedDict
from pathlib import Path

import torch

VOCABULARY = 32_000


def llama_shapes(*, width: int, layers: int, mlp: int) -> OrderedDict[str, torch.Size]:
    """Return the parameter shapes of a LLaMA of this width, in the order of the model."""
    shapes = OrderedDict({"model.embed_tokens.weight": torch.Size((VOCABULARY, width))})
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{prefix}.self_attn.{name}.weight"] = torch.Size((width, width))
        for name in ("gate_proj", "up_proj"):
            shapes[f"{prefix}.mlp.{name}.weight"] = torch.Size((mlp, width))
        shapes[f"{prefix}.mlp.down_proj.weight"] = torch.Size((width, mlp))
        shapes[f"{prefix}.input_layernorm.weight"] = torch.Size((width,))
        shapes[f"{prefix}.post_attention_layernorm.weight"] = torch.Size((width,))
    shapes["model.norm.weight"] = torch.Size((width,))
    shapes["lm_head.weight"] = torch.Size((VOCABULARY, width))
    return shapes


def write_zero3(folder: Path, groups: list[OrderedDict[str, torch.Size]], *, world_size: int, seed: int) -> int:
    """Write a checkpoint of random fp32 weights with Adam moments of zero, and return the bytes of the master weights.

    `groups` are the optimizer's parameter groups. Every rank's part of a parameter has ceil(elements / ranks) elements.
    """
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    lengths = [sum(math.ceil(shape.numel() / world_size) for shape in group.values()) for group in groups]
    for rank in range(world_size):
        flats = [torch.randn(length, generator=generator) for length in lengths]
        name = f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save(_model_state(groups, world_size), folder / f"{name}_model_states.pt")
        torch.save(_optimizer_state(flats, world_size), folder / f"{name}_optim_states.pt")
    return 4 * world_size * sum(lengths)


def _model_state(groups: list[OrderedDict[str, torch.Size]], world_size: int) -> dict[str, object]:
    return {
        "module": OrderedDict((name, torch.empty(0)) for group in groups for name in group),
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": groups,
        "frozen_param_shapes": None,
        "shared_params": {},
        "frozen_param_fragments": None,
        "lr_scheduler": None,
        "global_steps": 1,
        "dp_world_size": world_size,
        "mp_world_size": 1,
        "ds_config": {},
        "ds_version": "0.19.8",
    }


def _optimizer_state(flats: list[torch.Tensor], world_size: int) -> dict[str, object]:
    moments = {
        index: {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)}
        for index, flat in enumerate(flats)
    }
    return {
        "optimizer_state_dict": {
            "zero_stage": 3,
            "partition_count": world_size,
            "optimizer_state_dict": {"state": moments, "param_groups": []},
            "fp32_flat_groups": flats,
        },
        "ds_version": "0.19.8",
    }
