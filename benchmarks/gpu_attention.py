"""Run attention over one packed row of 8K tokens on a GPU."""

import importlib.util
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from benchmarks.rows import Row
from mantis.models.attention import Kernel, flash, kernel_for, varlen

GOAL = ">=2"
KERNELS_GOAL = ">=0.9"  # torch's kernel may be a tenth slower: it needs no package that is compiled for hours
REPEATS = 20
TOKENS, HEADS, WIDTH = 8192, 32, 128
SEGMENT = 816  # mean tokens of a sample of Idefics2


def attention(full: bool) -> Row:
    """Measure milliseconds of forward and backward of the kernel that training takes."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    packed = _packed_row()

    owner = torch.repeat_interleave(torch.arange(len(packed.segments)), torch.tensor(packed.segments))
    mask = (owner[:, None] == owner[None, :]).tril().to(packed.query.device)
    kernel = kernel_for(packed.query.device, torch.bfloat16)

    def peer() -> None:
        scaled_dot_product_attention(*packed.tensors, attn_mask=mask).sum().backward()

    middle = _medians({"peer": peer, "ours": packed.run_with(kernel)})
    details = {"kernel": kernel.__name__, "device": packed.device_name, "segments": packed.segments}
    return _row("gpu.attention", GOAL, middle["peer"], middle["ours"], details)


def kernels(full: bool) -> Row:
    """Measure the two varlen kernels: torch's own as ours, flash-attn as peer. Without the peer, only ours."""
    packed = _packed_row()
    has_peer = importlib.util.find_spec("flash_attn") is not None
    works = {"ours": packed.run_with(varlen)} | ({"peer": packed.run_with(flash)} if has_peer else {})
    middle = _medians(works)
    versions = {name: version(name) for name in ("torch", *(["flash-attn"] if has_peer else []))}
    details = {"versions": versions, "device": packed.device_name, "segments": packed.segments}
    return _row("gpu.attention_kernels", KERNELS_GOAL, middle.get("peer"), middle["ours"], details)


@dataclass(frozen=True, kw_only=True)
class _PackedRow:
    """Query, key and value [1, heads, T, width] in bf16 on a GPU, and the lengths of the segments."""

    query: Any
    key: Any
    value: Any
    segments: list[int]

    @property
    def tensors(self) -> tuple[Any, Any, Any]:
        return self.query, self.key, self.value

    @property
    def device_name(self) -> str:
        import torch

        return str(torch.cuda.get_device_name(self.query.device))

    def run_with(self, kernel: Kernel) -> Callable[[], None]:
        """Forward and backward of one kernel."""
        return lambda: kernel(*self.tensors, self.segments, None, True).sum().backward()


def _packed_row() -> _PackedRow:
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device: this row needs one.")
    query, key, value = (
        torch.randn(1, HEADS, TOKENS, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    segments = [SEGMENT] * (TOKENS // SEGMENT) + [TOKENS % SEGMENT]
    return _PackedRow(query=query, key=key, value=value, segments=segments)


def _medians(works: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Milliseconds of each; they take turns, and the first two rounds do not count."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(REPEATS + 2):
        for name, work in works.items():
            milliseconds = _timed(work)
            if repeat >= 2:
                found[name].append(milliseconds)
    return {name: statistics.median(values) for name, values in found.items()}


def _row(name: str, goal: str, peer: float | None, ours: float, details: dict[str, Any]) -> Row:
    ratio = peer / ours if peer else 1.0
    return Row(name=name, peer=peer, ours=ours, ratio=ratio, unit="ms", goal=goal, details=details)


def _timed(work: Callable[[], None]) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))
