import pytest
import torch

from mantis.models.attention import _cu_seqlens, kernel_for, kernel_name, segment_attention

SEGMENTS = [3, 1, 6]


def parts(key_heads: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, sum(SEGMENTS), 8, generator=generator) for heads in (4, key_heads, key_heads)]


@pytest.mark.parametrize("key_heads", [4, 2])
def test_a_segment_sees_itself_alone_and_nothing_behind(key_heads: int) -> None:
    query, key, value = parts(key_heads)
    found, _ = segment_attention(torch.nn.Identity(), query, key, value, None, segments=SEGMENTS)
    owner = torch.repeat_interleave(torch.arange(len(SEGMENTS)), torch.tensor(SEGMENTS))
    allowed = (owner[:, None] == owner[None, :]).tril()
    repeated = [part.repeat_interleave(4 // key_heads, dim=1) for part in (key, value)]
    scores = (query @ repeated[0].mT / 8**0.5).masked_fill(~allowed, -torch.inf)
    expected = (scores.softmax(-1) @ repeated[1]).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_a_cpu_takes_segment_by_segment() -> None:
    assert kernel_for(torch.device("cpu"), torch.bfloat16).__name__ == "by_segment"


def test_ends_of_segments_are_cumulative() -> None:
    ends = _cu_seqlens(tuple(SEGMENTS), torch.device("cpu"))
    assert ends.tolist() == [0, 3, 4, 10]
    assert ends.dtype == torch.int32


def test_the_kernel_has_a_name_for_people() -> None:
    assert kernel_name(torch.device("cpu"), torch.bfloat16) == "scaled dot product attention, segment by segment"
    assert kernel_name(torch.device("cuda"), torch.float32) == "scaled dot product attention, segment by segment"
    assert kernel_name(torch.device("cuda"), torch.bfloat16).startswith(("varlen kernel of torch 2", "flash-attn 2"))
