"""Compare tensors that two matrix products of the same numbers gave."""

from collections.abc import Mapping

import torch
from torch import Tensor


def assert_merged_alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that two merges of one adapter differ by no more than the rounding of one fp32 product.

    BLAS orders the sums of a product by the processor, the shape of a block, and the alignment of its memory. So fp32
    results may differ in the last bits. In bf16 such a difference shows only where a sum lies between two values.

    Args:
        found: the merged tensors under test, with entries of about 1.
        expected: the tensors of the other merge.
    """
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        other = found[name]
        assert other.dtype == tensor.dtype, name
        if tensor.dtype == torch.float32:
            torch.testing.assert_close(other, tensor, rtol=1e-6, atol=1e-6)
        else:
            assert (other == tensor).float().mean() >= 0.99, name
            torch.testing.assert_close(other, tensor, rtol=2 * torch.finfo(tensor.dtype).eps, atol=1e-6)
