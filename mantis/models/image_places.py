"""Put image features into a packed row without asking the GPU how many places there are.

transformers counts the image tokens of each forward and compares the count with the features. On a GPU that waits for
all queued kernels, in every micro-step. Training compares them on the host, before a sample is packed
(components/training/batching/collate.py).
"""

from functools import partial
from typing import Any

from torch import Tensor


def find_places_unchecked(model: Any) -> None:
    """Replace `get_placeholder_mask` of a LlavaModel or a FuyuModel."""
    model.get_placeholder_mask = partial(_placeholder_mask, model)


def merge_unchecked(model: Any) -> None:
    """Replace `inputs_merger` of an Idefics2Model."""
    model.inputs_merger = partial(_merged, model)


def _placeholder_mask(model: Any, input_ids: Tensor, **_: Any) -> Tensor:
    """Where the image tokens of `input_ids` [1, T] are, [1, T, 1] bool."""
    mask: Tensor = input_ids == model.config.image_token_id
    return mask.unsqueeze(-1)


def _merged(model: Any, input_ids: Tensor, inputs_embeds: Tensor, image_hidden_states: Tensor) -> Tensor:
    """The embeddings [1, T, width] with the features, in order, at the places of image tokens."""
    mask = _placeholder_mask(model, input_ids)
    return inputs_embeds.masked_scatter(mask, image_hidden_states.to(inputs_embeds.dtype))
