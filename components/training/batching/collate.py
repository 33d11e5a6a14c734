"""Encodes samples and packs them into the row that a micro-step trains."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mantis.dataset.mixture_reader import TrainingSample
from mantis.errors import MantisError, TrainingError
from mantis.models.family import IGNORE, Encoding, Processor
from mantis.models.packed_batch import ON_HOST, PackedBatch, Pixels


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sample as the model's input: tokens with labels, and the pixels of its images."""

    id: str
    encoding: Encoding
    pixels: Pixels
    weight: float = 1.0  # multiplies the sample's loss


def prepare(sample: TrainingSample, *, processor: Processor, tokens: int) -> Prepared:
    """Encode and preprocess one sample, which has `tokens` tokens by the mixture's index.

    Raises:
        TrainingError: the sample cannot be encoded, has no target, or has another length; names the sample.
    """
    name = sample.conversation.id
    try:
        encoding = processor.encode(sample.conversation)
        pixels = processor.preprocess(sample.images)
    except Exception as error:  # it passed data preparation, so any error is unexpected and needs the sample's name
        reason = str(error) if isinstance(error, MantisError) else f"{type(error).__name__}: {error}"
        raise TrainingError(f"Sample {name} cannot be prepared: {reason}", remedy=_REMEDY) from error
    if len(encoding.input_ids) != tokens:
        raise TrainingError(
            f"Sample {name} has {len(encoding.input_ids)} tokens; the mixture's index says {tokens}.", remedy=_REMEDY
        )
    # What transformers checks on the GPU; see mantis/models/image_places.py.
    patches = processor.sample_patches(sample.conversation.sizes)
    if pixels.image_grid.prod(1).tolist() != patches:
        raise TrainingError(
            f"Sample {name} has images of {pixels.image_grid.prod(1).tolist()} patches; its row says {patches}.",
            remedy=_REMEDY,
        )
    if all(label == IGNORE for label in encoding.labels[1:]):
        raise TrainingError(f"Sample {name} has no target token.", remedy=_REMEDY)
    return Prepared(id=name, encoding=encoding, pixels=pixels, weight=sample.weight)


_REMEDY = "It passed `prepare`, so its dataset or the family's code changed since: delete the dataset and run again."


def collate(samples: Sequence[Prepared], *, no_pixels: Pixels) -> PackedBatch:
    """Pack samples into one row; without samples the row is empty. `no_pixels` are the pixels of zero images."""
    lengths = [len(sample.encoding.input_ids) for sample in samples]
    labels = [torch.tensor(sample.encoding.labels) for sample in samples]
    # The hidden state before a label predicts it, so a sample's first token is never a target.
    positions = [torch.nonzero(label[1:] != IGNORE).flatten() for label in labels]
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return PackedBatch(
        input_ids=_row([torch.tensor(sample.encoding.input_ids) for sample in samples]).unsqueeze(0),
        position_ids=_row([torch.arange(length) for length in lengths]).unsqueeze(0),
        cu_seqlens=torch.tensor(starts, dtype=torch.int32),
        pixel_values=torch.cat([no_pixels.values, *(sample.pixels.values for sample in samples)]),
        image_grid=torch.cat([no_pixels.image_grid, *(sample.pixels.image_grid for sample in samples)]),
        targets=_row([label[1:][position] for label, position in zip(labels, positions, strict=True)]),
        target_positions=_row([start + position for start, position in zip(starts, positions, strict=False)]),
        target_samples=_row([torch.full_like(position, index) for index, position in enumerate(positions)]),
        weights=torch.tensor([sample.weight for sample in samples], dtype=torch.float32),
    )


def _row(parts: list[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int64), *parts])


def to_device(batch: PackedBatch, device: torch.device, dtype: torch.dtype) -> PackedBatch:
    """Copy the batch to `device`, with its pixels in the model's `dtype`; `ON_HOST` stays on the host."""
    if device.type == "cpu" and dtype == batch.pixel_values.dtype:
        return batch
    moved = {
        field.name: getattr(batch, field.name).to(device, non_blocking=True)
        for field in fields(batch)
        if field.name not in {"pixel_values", *ON_HOST}
    }
    return replace(batch, pixel_values=batch.pixel_values.to(device, dtype, non_blocking=True), **moved)
