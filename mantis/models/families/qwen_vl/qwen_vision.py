"""The vision parts of Qwen2.5-VL and Qwen3-VL over images behind each other, as transformers has them.

transformers splits its attention by values that lie on the GPU, and calls it once for every image or window. Here the
grids stay on the host, and one kernel computes all of them.
"""

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, pad
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from mantis.models.attention import kernel_for
from mantis.models.families.qwen_vl.processing import FRAMES


def attend_at_once(model: Any) -> None:
    """Let every block of the vision part take lengths of segments, a list, as its `cu_seqlens`."""
    for block in model.model.visual.blocks:
        block.attn.forward = partial(_attention, block.attn)


def embed_at_once(model: Any) -> None:
    """Let the patch embedding take patches of one frame, and compute one matrix product.

    A convolution of every patch alone is that product, several times slower.
    """
    embedding = model.model.visual.patch_embed.proj
    embedding.forward = partial(_patch_embedding, embedding)


def find_image_places(model: Any) -> None:
    """Replace what transformers does with values of the GPU when it puts features into a row."""
    model.model.get_placeholder_mask = partial(_placeholder_masks, model.model)
    language = model.model.language_model
    if hasattr(language, "_deepstack_process"):
        language._deepstack_process = _deepstack


def windowed_features(model: Any, pixel_values: Tensor, image_grid_thw: Tensor, **_: Any) -> SimpleNamespace:
    """What Qwen2_5_VLModel.get_image_features gives; `generate` looks for arguments of these names.

    Args:
        model: a Qwen2_5_VLModel; only its modules are called, each once, whatever images there are: under ZeRO-3 all
            ranks have to make the same calls.
        pixel_values: [P, 3 * edge * edge], the patches of all images.
        image_grid_thw: [N, 2] or [N, 3] on the host; the last two are rows and columns.
    """
    visual, grid = model.visual, _grid_thw(image_grid_thw)
    hidden = _embedded(visual, pixel_values)
    windows, ends = get_vision_window_index(
        grid,
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    order = windows.to(hidden.device)
    permute = partial(visual.permute_input_for_window_attn, window_index=order, seq_len=len(hidden))
    positions = get_vision_position_ids(grid, visual.spatial_merge_size).to(hidden.device)
    rotary = tuple(permute(part) for part in visual.rotary_pos_emb(hidden, positions))
    whole, within = grid.prod(1).tolist(), ends.diff().tolist()
    hidden = permute(hidden)
    for number, block in enumerate(visual.blocks):
        lengths = whole if number in visual.fullatt_block_indexes else within
        hidden = block(hidden, cu_seqlens=lengths, position_embeddings=rotary)
    features = visual.merger(hidden)[torch.argsort(windows).to(hidden.device)]
    return SimpleNamespace(pooler_output=[features], last_hidden_state=hidden)


def deep_features(model: Any, pixel_values: Tensor, image_grid_thw: Tensor, **_: Any) -> SimpleNamespace:
    """What Qwen3VLModel.get_image_features gives, with arguments as those of `windowed_features`."""
    visual, grid = model.visual, _grid_thw(image_grid_thw)
    hidden = _embedded(visual, pixel_values)
    places, weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=visual.spatial_merge_size,
    )
    nearest = visual.pos_embed(places.to(hidden.device)) * weights.to(hidden.device)[:, :, None]
    hidden = hidden + nearest.sum(1).to(hidden.dtype)
    positions = get_vision_position_ids(grid, visual.spatial_merge_size).to(hidden.device)
    rotary = visual.rotary_pos_emb(hidden, positions)
    lengths, deep = grid.prod(1).tolist(), []
    for number, block in enumerate(visual.blocks):
        hidden = block(hidden, cu_seqlens=lengths, position_embeddings=rotary)
        if number in visual.deepstack_visual_indexes:
            merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(number)]
            deep.append([merger(hidden)])
    features = visual.merger(hidden)
    return SimpleNamespace(pooler_output=[features], last_hidden_state=hidden, deepstack_features=deep)


def two_frames(pixel_values: Tensor, edge: int) -> Tensor:
    """Patches [P, 3 * edge * edge] as transformers has them, [P, 3 * 2 * edge * edge]: an image is two equal frames."""
    frames = pixel_values.view(-1, 3, 1, edge * edge).expand(-1, -1, FRAMES, -1)
    return frames.reshape(len(pixel_values), -1)


def _embedded(visual: Any, pixel_values: Tensor) -> Tensor:
    embedded: Tensor = visual.patch_embed.proj(pixel_values.to(visual.dtype))
    return embedded


def _patch_embedding(module: Any, pixel_values: Tensor) -> Tensor:
    """[P, 3 * edge * edge] to [P, width], the same frame FRAMES times.

    In float32 the sum of the frames' weights meets one frame. Half precision would round that sum, so it keeps the
    frames.
    """
    if pixel_values.dtype == torch.float32:
        return linear(pixel_values, module.weight.sum(2).flatten(1), module.bias)
    frames = two_frames(pixel_values, module.kernel_size[-1])
    return linear(frames, module.weight.flatten(1), module.bias)


def _grid_thw(image_grid: Tensor) -> Tensor:
    """[N, 3]: one frame, rows and columns of each image."""
    return image_grid if image_grid.shape[1] == 3 else pad(image_grid, (1, 0), value=1)


def _attention(
    module: Any, hidden_states: Tensor, cu_seqlens: Sequence[int], position_embeddings: tuple[Tensor, Tensor], **_: Any
) -> Tensor:
    """Attention of patches [P, width] within segments of the lengths `cu_seqlens`."""
    query, key, value = module.qkv(hidden_states).reshape(len(hidden_states), 3, module.num_heads, -1).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    query, key, value = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
    kernel = kernel_for(hidden_states.device, query.dtype)
    attended = kernel(query, key, value, list(cu_seqlens), module.scaling, False)
    output: Tensor = module.proj(attended.reshape(len(hidden_states), -1))
    return output


def _placeholder_masks(model: Any, input_ids: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
    """Where the tokens of images and of videos are, [B, T, 1] bool each; there are no videos."""
    mask = (input_ids == model.config.image_token_id).unsqueeze(-1)
    return mask, torch.zeros_like(mask)


def _deepstack(hidden_states: Tensor, visual_pos_masks: Tensor, visual_embeds: Tensor) -> Tensor:
    """Add features [M, width] to the hidden states [B, T, width] of the M image tokens."""
    mask = visual_pos_masks.unsqueeze(-1)
    return hidden_states + torch.zeros_like(hidden_states).masked_scatter(mask, visual_embeds.to(hidden_states.dtype))
