"""Measure model FLOPs utilization of the packed step on a GPU: the largest fitting model, 8K tokens, bf16."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ranks import on_ranks
from benchmarks.rows import Row
from mantis.logging import configure

GOAL = ">=0.55"
LAYERS = (32, 24, 18, 14, 10, 7, 5)  # numbers of layers of width 4,096; a GPU holds at least 16 bytes per parameter
REPEATS = {False: 3, True: 8}


def step(full: bool) -> Row:
    """Measure the MFU of the model with the most layers that trains without running out of memory."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device: this row needs one.")
    failed: list[int] = []
    for layers in LAYERS:
        figures = _in_a_process(layers, REPEATS[full])
        if figures is not None:
            return _row(figures, failed)
        failed.append(layers)
    sys.exit(f"the GPU has too little memory for {LAYERS[-1]} layers.")


def _row(figures: dict[str, Any], failed: list[int]) -> Row:
    details = {"out_of_memory": failed, "limit": "the optimizer's pass over its states, once per step, is not hidden"}
    return Row(
        name="gpu.step",
        peer=None,
        ours=figures["mfu"],
        ratio=figures["mfu"],
        unit="of the device's bf16 peak",
        goal=GOAL,
        details=figures | details,
    )


def _in_a_process(layers: int, repeats: int) -> dict[str, Any] | None:
    """Return the figures; None if memory did not suffice."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        done = on_ranks(1, "gpu_step", out, layers, repeats, stderr=subprocess.PIPE, check=False)
        if done.returncode and "OutOfMemoryError" in done.stderr:
            return None
        if done.returncode:
            sys.exit(done.stderr[-4000:])
        figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def measure(width: int, layers: int, repeats: int) -> dict[str, Any]:
    """Measure one rank with a LLaVA-style model of `width`, with the lengths of Mantis-Idefics2."""
    import torch

    from benchmarks.training_lengths import IDEFICS2
    from benchmarks.training_step_ranks import KIND, Setup, make_case, timed, train
    from components.training.engine.deepspeed_engine import build_engine, join_ranks
    from components.training.monitoring.step_metrics import peak_memory
    from components.training.sizing.flops import peak_flops
    from mantis.config.model_settings import FromScratch, ImageSettings, ModelSettings
    from mantis.config.training_settings import TrainingSettings

    ranks = join_ranks()
    shape = FromScratch(
        vision_width=max(width // 4, 8),
        vision_layers=2,
        vision_heads=max(width // 256, 1),
        text_width=width,
        text_layers=layers,
        text_heads=max(width // 128, 1),
        text_mlp_ratio=3.5,
    )
    training = TrainingSettings(precision="bf16", gradient_checkpointing=True, train=("vision", "projector", "text"))
    model = ModelSettings(image=ImageSettings(size=8 * 14, patch_size=14), from_scratch=shape)
    setup = Setup(scale=1, grid=8, model=model, budget=8192, batch=64, training=training)
    case = make_case(IDEFICS2, setup, ranks)
    engine = build_engine(case.model, KIND, training)
    seconds = [timed(lambda: train(engine, case.packed, ranks, setup.batch)) for _ in range(repeats + 2)]
    step, epoch = statistics.median(seconds[2:]), case.epoch
    needed = case.flops(tokens=epoch.tokens, targets=epoch.targets, patches=epoch.patches, images=epoch.images).sum()
    peak = peak_flops(ranks.device, engine.dtype)
    return {
        "mfu": float(needed / step / peak) if peak else float("nan"),
        "parameters": engine.parameters,
        "layers": layers,
        "micro_steps": len(case.packed),
        "tokens_per_second": float(epoch.tokens.sum() / step),
        "peak_gb": peak_memory(ranks.device) / 1e9,
        "device": torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "cpu",
    }


if __name__ == "__main__":
    from components.training.engine.deepspeed_engine import leave_ranks

    configure()
    Path(sys.argv[1]).write_text(json.dumps(measure(4096, int(sys.argv[2]), int(sys.argv[3]))))
    leave_ranks()
