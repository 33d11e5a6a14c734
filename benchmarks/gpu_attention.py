"""Run attention over one packed row of 8K tokens on a GPU, with SDPA and a mask as peer."""

import statistics
import sys
from collections.abc import Callable

from benchmarks.rows import Row

GOAL = ">=2"
REPEATS = 20
TOKENS, HEADS, WIDTH = 8192, 32, 128
SEGMENT = 816  # mean tokens of a sample of Idefics2


def attention(full: bool) -> Row:
    """Measure milliseconds of forward and backward."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if not torch.cuda.is_available():
        sys.exit("no CUDA device: this row needs one.")
    from mantis.models.attention import kernel_for

    device = torch.device("cuda", 0)
    segments = [SEGMENT] * (TOKENS // SEGMENT) + [TOKENS % SEGMENT]
    owner = torch.repeat_interleave(torch.arange(len(segments)), torch.tensor(segments)).to(device)
    mask = (owner[:, None] == owner[None, :]).tril()
    query, key, value = (
        torch.randn(1, HEADS, TOKENS, WIDTH, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    kernel = kernel_for(device, torch.bfloat16)

    def peer() -> None:
        scaled_dot_product_attention(query, key, value, attn_mask=mask).sum().backward()

    def ours() -> None:
        kernel(query, key, value, segments, None, True).sum().backward()

    found: dict[str, list[float]] = {"peer": [], "ours": []}
    for repeat in range(REPEATS + 2):
        for name, work in (("peer", peer), ("ours", ours)):
            milliseconds = _timed(work)
            if repeat >= 2:
                found[name].append(milliseconds)
    middle = {name: statistics.median(values) for name, values in found.items()}
    return Row(
        name="gpu.attention",
        peer=middle["peer"],
        ours=middle["ours"],
        ratio=middle["peer"] / middle["ours"],
        unit="ms",
        goal=GOAL,
        details={"kernel": kernel.__name__, "device": torch.cuda.get_device_name(device), "segments": segments},
    )


def _timed(work: Callable[[], None]) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))
