"""Write real DeepSpeed checkpoints: `python -m tests.helpers.write_zero_checkpoints OUT`.

DeepSpeed is imported once and the ranks of every layout are forked from there: an import for each takes a minute.

OUT/zero<stage>-<ranks>/ holds step-00000002/ (DeepSpeed's files) and expected.safetensors (what DeepSpeed's own
zero_to_fp32 makes of them). OUT/llava/ is a store with the checkpoint of a tiny model, as training leaves it; OUT/lora/
and OUT/dora/ are stores with adapters on a tiny model, the latter's base quantized. OUT/family-<name>/ is as
OUT/zero<stage>-<ranks>/, of a model family, with its config.json.
"""

import hashlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from bitsandbytes.nn.modules import Linear4bit
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.models import attention
from mantis.models.packed_batch import PackedBatch
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_names, family_spec
from tests.helpers.forked_ranks import fork_ranks

TAG = "step-00000002"
STAGES, WORLDS = (2, 3), (1, 2, 3, 7)
LLAVA_WORLD = 2
TRAINED = Path("checkpoints", "trained")


class Odd(torch.nn.Module):
    """Sizes that divide by no world size, frozen and tied weights, buffers of two types."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(7, 5)
        self.frozen = torch.nn.Linear(5, 5).requires_grad_(False)
        self.middle = torch.nn.Linear(5, 5)
        self.norm = torch.nn.BatchNorm1d(5)
        self.scale = torch.nn.Parameter(torch.tensor([1.5]))
        self.head = torch.nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Any) -> Any:
        hidden = self.norm(self.middle(self.frozen(self.embed(tokens)))) * self.scale
        return torch.nn.functional.cross_entropy(self.head(hidden), tokens)


def engine_of(model: torch.nn.Module, stage: Any) -> Any:
    """Two parameter groups, as weight decay makes them; the last elements of each rank's part are padding."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim >= 2], "weight_decay": 0.1},
        {"params": [weight for weight in trained if weight.ndim < 2], "weight_decay": 0.0},
    ]
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": 0.05, "torch_adam": True}},
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = deepspeed.initialize(model=model, model_parameters=groups, config=config)
    return engine


def train_odd(folder: Any, stage: Any) -> None:
    torch.manual_seed(7)
    engine = engine_of(Odd(), stage)
    for step in range(2):
        engine.backward(engine(torch.tensor([0, 1, 2, 3, 4, 5 + step % 2])))
        engine.step()
    engine.save_checkpoint(str(folder), tag=TAG)


def save_family(folder: Any, name: Any) -> None:
    kind = family(name)
    tokenizer = train_tokenizer(["What colour is it? red"] * 4, vocabulary=300, special_tokens=kind.special_tokens())
    shape = FromScratch(vision_width=32, text_width=32, text_layers=2)
    settings = ModelSettings(family=name, prompt=kind.template, image=family_spec(name).small_image, from_scratch=shape)
    model = kind.build(kind.processor(tokenizer, settings), seed=5)
    engine = engine_of(model, 3)
    engine.save_checkpoint(str(folder), tag=TAG)
    model.config.save_pretrained(folder)


def train_adapters(folder: Any, *, dora: Any) -> None:
    """Two steps of rsLoRA beside a projector and saved embeddings under ZeRO-3, or of DoRA on nf4 under ZeRO-2."""
    llava, processor = tiny_llava()
    base = llava.build(processor, seed=3)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        base.save_pretrained(folder / "model")
        processor.save(folder / "model")
    torch.distributed.barrier()
    if dora:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        )
        base = AutoModelForImageTextToText.from_pretrained(
            folder / "model", quantization_config=quantization, device_map="cpu", dtype=torch.float32
        )
        for layer in base.modules():
            if isinstance(layer, Linear4bit):
                layer.support_avx512bf16_for_cpu = False  # as components.training.engine.adapter_training.quantize says
        base.set_attn_implementation({"text_config": attention.SEGMENTS, "vision_config": "sdpa"})
    targets = r".*language_model.*\.(q_proj|v_proj|up_proj|down_proj)"
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        use_dora=dora,
        use_rslora=not dora,
        init_lora_weights="gaussian",
        target_modules=targets,
        modules_to_save=None if dora else ["embed_tokens"],
    )
    torch.manual_seed(9)
    model = get_peft_model(base, config)
    for name, weight in model.named_parameters():
        whole = "multi_modal_projector" in name or "modules_to_save" in name
        weight.requires_grad_("lora_" in name or (not dora and whole))
    engine = engine_of(model, 2 if dora else 3)
    batch = packed(processor.tokenizer.convert_tokens_to_ids("<image>"))
    for _ in range(2):
        engine.backward(torch.nn.functional.cross_entropy(llava.forward(engine, batch), batch.targets))
        engine.step()
    with torch.no_grad():
        logits = llava.forward(engine, batch)
    # bitsandbytes replaces its weights when they move, and DeepSpeed does not find the frozen ones again
    engine.save_checkpoint(str(folder), tag=TAG, exclude_frozen_parameters=True)
    if torch.distributed.get_rank() == 0:
        save_file(vars(batch) | {"logits": logits}, folder / "probe.safetensors")
        config.save_pretrained(folder / "model")


def tiny_llava() -> Any:
    llava = family("llava-clip")
    tokenizer = train_tokenizer(["What colour is it? red"] * 4, vocabulary=300, special_tokens=llava.special_tokens())
    shape = FromScratch(vision_width=32, text_width=32, text_layers=2)
    return llava, llava.processor(tokenizer, ModelSettings(from_scratch=shape))


def train_llava(folder: Any) -> None:
    llava, processor = tiny_llava()
    engine = engine_of(llava.build(processor, seed=3), 3)
    batch = packed(processor.tokenizer.convert_tokens_to_ids("<image>"))
    for _ in range(2):
        engine.backward(torch.nn.functional.cross_entropy(llava.forward(engine, batch), batch.targets))
        engine.step()
    with torch.no_grad():
        logits = llava.forward(engine, batch)
    engine.save_checkpoint(str(folder), tag=TAG)
    if torch.distributed.get_rank() == 0:
        save_file(vars(batch) | {"logits": logits}, folder / "probe.safetensors")
        engine.module.config.save_pretrained(folder / "model")
        processor.save(folder / "model")


def packed(image: Any) -> Any:
    """A sample with an image and one without, in one row."""
    first, second = [image] * 4 + [40, 41, 42, 43], [50, 51, 52]
    return PackedBatch(
        input_ids=torch.tensor([first + second]),
        position_ids=torch.tensor([[*range(len(first)), *range(len(second))]]),
        cu_seqlens=torch.tensor([0, len(first), len(first + second)], dtype=torch.int32),
        pixel_values=torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1)),
        image_grid=torch.tensor([[2, 2]]),
        targets=torch.tensor([41, 42, 43, 51, 52]),
        target_positions=torch.tensor([4, 5, 6, 8, 9]),
        target_samples=torch.tensor([0, 0, 0, 1, 1]),
        weights=torch.ones(2),
    )


def commit(folder: Any) -> None:
    files = [
        {"name": path.name, "size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted((folder / TAG).iterdir())
    ]
    content = {"step": 2, "world_size": LLAVA_WORLD, "zero_stage": 2, "files": files}
    (folder / TAG / "COMMIT").write_text(json.dumps(content))


def main(out: Any) -> None:
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__ = {}  # as in deepspeed_engine.py: otherwise it compiles for a minute

    def work(world: Any) -> None:
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
        for stage in STAGES:
            train_odd(out / f"zero{stage}-{world}", stage)
        if world == LLAVA_WORLD:
            train_llava(out / "llava" / TRAINED)
            for dora in (False, True):
                train_adapters(out / ("dora" if dora else "lora") / TRAINED, dora=dora)
            for name in family_names():
                save_family(out / f"family-{name}", name)
        torch.distributed.destroy_process_group()

    for world in WORLDS:
        fork_ranks(world, partial(work, world))
    for name in ("llava", "lora", "dora"):
        commit(out / name / TRAINED)
    for folder in [*out.glob("zero*"), *out.glob("family-*")]:
        expected = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=TAG)
        save_file({name: tensor.clone() for name, tensor in expected.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
