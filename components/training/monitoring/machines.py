"""The machines and the software that a training runs on, for its summary and the report."""

import platform
import socket
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from components.training.engine.deepspeed_engine import DistributedContext
from mantis.artifacts.manifest import Number

PACKAGES = ("torch", "deepspeed", "transformers")
CPU_MODEL = "model name"  # key of a line in /proc/cpuinfo


def machines(ranks: DistributedContext) -> dict[str, Number]:
    """Devices, ranks, GPUs, nodes and versions; collective. A rank has a device of its own, or a share of a CPU."""
    found: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(found, (device_name(ranks.device), socket.gethostname()))
    devices = Counter(name for name, _ in found)
    return {
        "hardware": ", ".join(f"{count} × {name}" for name, count in devices.most_common()),
        "ranks": ranks.world_size,
        "gpus": ranks.world_size if ranks.device.type == "cuda" else 0,
        "nodes": len({host for _, host in found}),
        "software": versions(),
    }


def device_name(device: torch.device) -> str:
    """The maker's name of a rank's GPU, or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith(CPU_MODEL)), "")
    return f"CPU rank ({named or platform.machine()})"


def versions() -> str:
    """The versions that decide speed and rounding, on one line."""
    parts = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    return ", ".join([*parts, *([f"CUDA {torch.version.cuda}"] if torch.version.cuda else [])])
