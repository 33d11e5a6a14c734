"""The proof that a converted model is the checkpoint's: the bytes of every tensor, and the logits of a batch."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from components.conversion.shard_writer import Shard, hash_written
from mantis.errors import ConversionError
from mantis.models.packed_batch import PackedBatch
from mantis.models.registry import family

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

# (precision of training, precision stored) -> the largest difference that is no error, as a share of the largest
# logit. The batch is run in the precision of training, so that only what conversion did to the weights shows.
TOLERANCES = {
    ("fp32", "fp32"): 0.0,  # the same weights, the same sums, on the same kind of machine
    ("fp32", "bf16"): 0.05,  # every weight rounded to 8 bits
    ("bf16", "fp32"): 0.05,  # the same weights; the sums of a GPU and a CPU differ by bf16's rounding
    ("bf16", "bf16"): 0.05,
}

# The same for merged adapters, compared with peft, which adds B A x to W x where the merged model has (W + B A) x.
MERGE_TOLERANCES = TOLERANCES | {("fp32", "fp32"): 1e-4}


def prove_tensors(shards: list[Shard], folder: Path, digests: dict[str, str]) -> None:
    """Every tensor of the files has the bytes that came out of the checkpoint.

    Raises:
        ConversionError: one has not; names it.
    """
    written = hash_written(shards, folder)
    different = [name for name, digest in digests.items() if written[name] != digest]
    if different:
        raise ConversionError(
            f"{different[0]} was written with other bytes than the checkpoint holds"
            f" ({len(different)} of {len(digests)} tensors differ).",
            remedy="The disk or its memory is faulty: point TMPDIR elsewhere and run the step again.",
        )


def prove_logits(
    folder: Path,
    probe: bytes,
    *,
    family_name: str,
    trained: str,
    stored: str,
    reference: Callable[[], PreTrainedModel] | None = None,
) -> float:
    """The largest difference between the logits of the model in `folder` and those that training stored.

    With a `reference`, those that this model has now: a quantized base gave training others.

    `probe` is a safetensors file with the fields of a PackedBatch and `logits`; `trained` and `stored` are the
    precisions of training and of the folder's weights.

    Raises:
        ConversionError: the model lacks weights, or the difference is larger than TOLERANCES allows.
    """
    tensors = load(probe)
    names = {field.name for field in fields(PackedBatch)} | {"logits"}
    if set(tensors) != names:
        odd = ", ".join(sorted(set(tensors) ^ names))
        raise ConversionError(f"probe.safetensors and its contract differ in: {odd}.", remedy="Train again.")
    expected = tensors.pop("logits").float()
    model = load_model(folder, DTYPES[trained], family_name)
    torch.set_num_threads(1)  # as training has it: sums in another order are other sums
    batch = PackedBatch(**tensors)
    batch = replace(batch, pixel_values=batch.pixel_values.to(DTYPES[trained]))
    with torch.no_grad():
        logits = family(family_name).forward(model, batch).float()
        if reference is None:
            return _compare(logits, expected, TOLERANCES[trained, stored])
        del model  # one model in memory at a time
        expected = family(family_name).forward(reference(), batch).float()
    return _compare(logits, expected, MERGE_TOLERANCES[trained, stored])


def load_model(folder: Path, dtype: torch.dtype, family_name: str) -> PreTrainedModel:
    """The model as anyone loads it, made ready for packed batches.

    Raises:
        ConversionError: weights are missing, unexpected, or of another shape than the configuration says.
    """
    model, report = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            raise ConversionError(
                f"transformers reports {what.replace('_', ' ')}: {', '.join(map(str, sorted(report[what])[:3]))}"
                f" ({len(report[what])} in all).",
                remedy="The checkpoint was trained with another model than its model/config.json describes.",
            )
    family(family_name).for_packing(model)
    loaded: PreTrainedModel = model.eval()
    return loaded


def _compare(logits: Tensor, expected: Tensor, tolerance: float) -> float:
    if logits.shape != expected.shape:
        raise ConversionError(
            f"The model gives logits of shape {tuple(logits.shape)}, training stored {tuple(expected.shape)}.",
            remedy="The probe belongs to another model: train again.",
        )
    largest = float((logits - expected).abs().max())
    allowed = tolerance * float(expected.abs().max())
    if not largest <= allowed:  # NaN is a difference too
        raise ConversionError(
            f"The converted model's logits differ by up to {largest:.3g} from training's; {allowed:.3g} is allowed.",
            remedy="Nothing was stored. Run `convert` on the kind of machine that trained, or train again.",
        )
    return largest
