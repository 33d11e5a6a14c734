"""On every rank: steps of QLoRA + DoRA through the engine, beside transformers and peft alone in plain torch.

Arguments: store URL, file for the figures, ids of runs.
"""

import sys
import tempfile
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from components.training.engine.deepspeed_engine import DistributedContext, build_engine
from components.training.loss import LossHead
from mantis.config.model_settings import ModelSettings
from mantis.config.training_settings import AdapterSettings, TrainingSettings
from mantis.dataset.mixture_reader import MixtureReader
from mantis.models.family import Family
from mantis.models.registry import family
from tests.helpers.compare_zero_step import BATCH, Figures, main, steps_of

TARGETS = {
    "llava-clip": r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
    "idefics2": r".*(text_model|modality_projection|perceiver_resampler).*\.(down|gate|up|k|q|v|o)_proj",
}
PUBLISHED = {
    "llava-clip": AdapterSettings(rank=8, alpha=16, quantized=("projector", "text")),
    "idefics2": AdapterSettings(
        rank=4,
        alpha=4,
        init="gaussian",
        targets=("down_proj", "gate_proj", "up_proj", "k_proj", "q_proj", "v_proj", "o_proj"),
        quantized=("vision", "projector", "text"),
    ),
}
UNQUANTIZED = {"llava-clip": ["model.vision_tower", "lm_head"], "idefics2": ["lm_head"]}
OF_OTHERS = AdapterSettings(rank=4, alpha=8, quantized=("text",))  # families that the paper does not have


def train(
    model_settings: ModelSettings, settings: TrainingSettings, reader: MixtureReader, ranks: DistributedContext
) -> list[Figures]:
    kind = family(model_settings.family)
    parts = ("projector", "text") if kind.name == "idefics2" else ("text",)
    adapter = PUBLISHED.get(kind.name, OF_OTHERS)
    settings = settings.model_copy(
        update={"global_batch_size": BATCH, "zero_stage": 2, "train": parts, "adapter": adapter}
    )
    processor = kind.processor(reader.tokenizer(), model_settings)
    model = kind.build(processor, seed=3)
    reference = peft_alone(model, kind, adapter)
    engine = build_engine(model, kind, settings)
    learned = {name: weight for name, weight in engine.deepspeed.module.named_parameters() if weight.requires_grad}
    for name, weight in reference.named_parameters():
        assert weight.requires_grad == (name in learned), name
        if weight.requires_grad:
            weight.data.copy_(learned[name])
    return steps_of(engine, reference, LossHead(model), kind, processor, settings, reader, ranks)


def peft_alone(model: Any, kind: Family, adapter: AdapterSettings) -> Any:
    """The model as transformers quantizes it when it loads it, with peft's adapters."""
    with tempfile.TemporaryDirectory() as own:
        folders = [own]
        torch.distributed.broadcast_object_list(folders)  # transformers saves on the first rank alone
        folder = folders[0]
        model.save_pretrained(folder)
        torch.distributed.barrier()
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=UNQUANTIZED.get(kind.name) or ["lm_head", *_linear(model, kind, text=False)],
        )
        loaded = AutoModelForImageTextToText.from_pretrained(
            folder, quantization_config=config, device_map="cpu", dtype=torch.float32
        )
        torch.distributed.barrier()
    kind.for_packing(loaded)
    targets = TARGETS.get(kind.name) or _linear(model, kind, text=True)
    lora = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, use_dora=True, target_modules=targets)
    wrapped: Any = get_peft_model(loaded, lora)
    return wrapped.base_model.model.train()


def _linear(model: Any, kind: Family, *, text: bool) -> list[str]:
    """The linear layers of the text model, or all others; never the head."""
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [name for name in names if name != "lm_head" and (kind.parameter_group(name) == "text") == text]


if __name__ == "__main__":
    main(train, *sys.argv[1:])
