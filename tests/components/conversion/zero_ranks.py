"""Writes real DeepSpeed checkpoints: `python zero_ranks.py OUT`.

Imports DeepSpeed once and forks the ranks of every layout from there; an import for every rank would take minutes.
A layout is OUT/zero<stage>-<world size>/ with step-00000002/ (DeepSpeed's files) and expected.safetensors (what
DeepSpeed's own zero_to_fp32 makes of them).
"""

import os
import socket
import sys
from pathlib import Path

import deepspeed
import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from safetensors.torch import save_file

TAG = "step-00000002"
LAYOUTS = [(stage, world) for world in (1, 2, 3) for stage in (2, 3)]


class Odd(torch.nn.Module):
    """Sizes that divide by no world size, frozen and tied weights, two parameter groups, buffers of two types."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 5)
        self.frozen = torch.nn.Linear(5, 5).requires_grad_(False)
        self.middle = torch.nn.Linear(5, 5)
        self.norm = torch.nn.BatchNorm1d(5)
        self.scale = torch.nn.Parameter(torch.tensor([1.5]))
        self.head = torch.nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        hidden = self.norm(self.middle(self.frozen(self.embed(tokens)))) * self.scale
        return torch.nn.functional.cross_entropy(self.head(hidden), tokens)


def settings(stage):
    return {
        "train_micro_batch_size_per_gpu": 6,
        "optimizer": {"type": "AdamW", "params": {"lr": 0.05, "torch_adam": True}},
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
    }


def groups(model):
    small = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim < 2]
    large = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim == 2]
    return [{"params": large, "weight_decay": 0.1}, {"params": small, "weight_decay": 0.0}]


def train(folder, stage):
    torch.manual_seed(7)
    model = Odd()
    engine, *_ = deepspeed.initialize(model=model, model_parameters=groups(model), config=settings(stage))
    for step in range(2):
        loss = engine(torch.tensor([0, 1, 2, 3, 4, 5 + step % 2]))
        engine.backward(loss)
        engine.step()
    engine.save_checkpoint(str(folder), tag=TAG)


def fork_ranks(world, work):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            run_rank(rank, world, port, work)
        children.append(child)
    if any([os.waitpid(child, 0)[1] for child in children]):
        sys.exit("a rank failed")


def run_rank(rank, world, port, work):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    code = 1
    try:
        torch.set_num_threads(1)
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
        work()
        torch.distributed.destroy_process_group()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for stage, world in LAYOUTS:
        folder = out / f"zero{stage}-{world}"
        fork_ranks(world, lambda folder=folder, stage=stage: train(folder, stage))
        expected = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=TAG)
        save_file({name: tensor.clone() for name, tensor in expected.items()}, folder / "expected.safetensors")
