import importlib.util
from typing import Any

import pytest
import torch

from mantis.models.attention import by_segment, flash, kernel_for, varlen

SEGMENTS = [1, 17, 128, 300, 66]
HEADS, WIDTH = 8, 64
TOLERANCE = 2e-2  # of bf16: 8 bits of mantissa, sums of a few hundred terms


def row(device: Any, *, key_heads: Any = HEADS, dtype: Any = torch.bfloat16) -> Any:
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(1, heads, sum(SEGMENTS), WIDTH) for heads in (HEADS, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator, device=device).to(dtype).requires_grad_() for shape in shapes]


def gradients(kernel: Any, tensors: Any) -> Any:
    output = kernel(*tensors, SEGMENTS, None)
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
    return output, torch.autograd.grad((output.float() * weights).sum(), tensors)


@pytest.mark.parametrize("key_heads", [HEADS, HEADS // 4], ids=["all heads", "grouped"])
@pytest.mark.parametrize("kernel", [varlen, flash], ids=["varlen", "flash"])
def test_one_call_equals_segment_by_segment(device: torch.device, kernel: Any, key_heads: Any) -> None:
    if kernel is flash and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("flash_attn is not installed")
    tensors = row(device, key_heads=key_heads)
    found, found_gradients = gradients(kernel, tensors)
    exact, exact_gradients = gradients(by_segment, [part.detach().float().requires_grad_() for part in tensors])
    torch.testing.assert_close(found.float(), exact, atol=TOLERANCE, rtol=TOLERANCE)
    for one, other in zip(found_gradients, exact_gradients, strict=True):
        assert (one.float() - other).norm() / other.norm() < TOLERANCE


def test_half_precision_takes_one_call_and_fp32_does_not(device: torch.device) -> None:
    assert kernel_for(device, torch.bfloat16) in (varlen, flash)
    assert kernel_for(device, torch.float32) is by_segment
