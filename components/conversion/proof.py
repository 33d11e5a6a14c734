"""Prove that a converted model equals the checkpoint, by the bytes of every tensor and the logits of one batch."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from components.conversion.shard_writer import Shard, hash_written
from mantis.errors import ConversionError
from mantis.models.packed_batch import PackedBatch
from mantis.models.registry import family

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

# (precision of training, stored precision) -> tolerated difference of logits, as a share of the largest logit.
# The batch runs in the precision of training, so that the difference shows only the effect of conversion.
TOLERANCES = {
    ("fp32", "fp32"): 1e-5,  # same weights, but the order of sums depends on the processor and on memory alignment
    ("fp32", "bf16"): 0.05,  # every weight is rounded to 8 bits
    ("bf16", "fp32"): 0.05,  # same weights, but sums on a GPU and a CPU differ by the rounding of bf16
    ("bf16", "bf16"): 0.05,
}

# For merged adapters the reference is peft. It computes W x + B A x, and the merged model computes (W + B A) x.
MERGE_TOLERANCES = TOLERANCES | {("fp32", "fp32"): 1e-4}


def prove_tensors(shards: list[Shard], folder: Path, digests: dict[str, str]) -> None:
    """Compare the bytes of every written tensor with the digests taken while the checkpoint was read.

    Raises:
        ConversionError: a tensor differs; the message names the first one.
    """
    written = hash_written(shards, folder)
    different = [name for name, digest in digests.items() if written[name] != digest]
    if different:
        raise ConversionError(
            f"{different[0]} was written with other bytes than the checkpoint holds"
            f" ({len(different)} of {len(digests)} tensors differ).",
            remedy="Set TMPDIR to another disk and run the step again: this disk or the memory is faulty.",
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
    """Compare the logits of the model in `folder` with those that training stored.

    With a `reference`, its logits replace the stored ones. Training on a quantized base gives other logits.

    Args:
        folder: the converted model.
        probe: a safetensors file with the fields of a PackedBatch and `logits`.
        family_name: the model family.
        trained: the precision of training, a key of DTYPES.
        stored: the precision of the folder's weights, a key of DTYPES.
        reference: builds the model to compare with.

    Returns:
        The largest absolute difference.

    Raises:
        ConversionError: the model lacks weights, or the difference is larger than TOLERANCES allows.
    """
    try:
        tensors = load(probe)
    except SafetensorError as error:
        raise ConversionError(f"probe.safetensors holds no tensors ({error}).", remedy="Train again.") from None
    # Probes of earlier trainings hold no weights of samples, which change no logits.
    if "cu_seqlens" in tensors:
        tensors.setdefault("weights", torch.ones(len(tensors["cu_seqlens"]) - 1))
    names = {field.name for field in fields(PackedBatch)} | {"logits"}
    if set(tensors) != names:
        odd = ", ".join(sorted(set(tensors) ^ names))
        raise ConversionError(f"probe.safetensors has missing or unexpected fields: {odd}.", remedy="Train again.")
    expected = tensors.pop("logits").float()
    model = load_model(folder, DTYPES[trained], family_name)
    torch.set_num_threads(1)  # as in training: the number of threads changes the order of sums
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
    """Load the model through transformers, and prepare it for packed batches.

    Raises:
        ConversionError: weights are missing, are unexpected, or have another shape than the configuration states.
    """
    model, report = AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=dtype,
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            raise ConversionError(
                f"transformers reports {what.replace('_', ' ')}: {', '.join(map(str, sorted(report[what])[:3]))}"
                f" ({len(report[what])} in all).",
                remedy="Train again: the checkpoint's model/config.json does not describe the model that was trained.",
            )
    family(family_name).for_packing(model)
    loaded: PreTrainedModel = model.eval()
    return loaded


def model_of_config(folder: Path) -> PreTrainedModel:
    """Build transformers' class for the config.json in `folder`, without code from the folder and without its weights.

    Raises:
        ConversionError: the configuration names code of its own, or no model for images and texts.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise ConversionError(
            f"config.json describes no model that transformers knows ({first}).",
            remedy="Use a model whose class is in transformers; code beside a model is never run.",
        ) from None
    return model


def _compare(logits: Tensor, expected: Tensor, tolerance: float) -> float:
    if logits.shape != expected.shape:
        raise ConversionError(
            f"The model gives logits of shape {tuple(logits.shape)}, but training stored {tuple(expected.shape)}.",
            remedy="Train again: probe.safetensors belongs to another model.",
        )
    largest = float((logits - expected).abs().max())
    allowed = tolerance * float(expected.abs().max())
    if not largest <= allowed:  # also true for NaN
        raise ConversionError(
            f"The converted model's logits differ by up to {largest:.3g} from training's; {allowed:.3g} is allowed.",
            remedy="Run `convert` on the kind of machine that trained, or train again. Nothing was stored.",
        )
    return largest
