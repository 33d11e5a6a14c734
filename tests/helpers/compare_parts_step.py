"""On every rank: steps with parts and with mixed adapters, beside plain torch and peft; saved, then gone on with.

Arguments: `save` or `resume`, folder of the checkpoints, variants as JSON, store URL, file for figures, ids of runs.
`resume` reads what `save` left, on any number of ranks: a checkpoint and the whole state of each run and variant.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from peft import LoraConfig, get_peft_model

from components.training.checkpointing.reshard import MOMENTS
from components.training.checkpointing.resume import restore
from components.training.checkpointing.saver import Saver, TrainingState
from components.training.engine.deepspeed_engine import DistributedContext, Engine, build_engine
from components.training.loss import LossHead
from mantis.config.model_settings import ModelSettings
from mantis.config.training_settings import AdapterSettings, TrainingSettings
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import TrainingError
from mantis.models.family import Family
from mantis.models.registry import family, family_spec
from mantis.store.local import LocalStore
from tests.helpers.compare_zero_step import BATCH, STEP_SAMPLES, Figures, main, plain_adamw, steps_of

TARGETS = ("q_proj", "v_proj", "down_proj")  # of LLaMA, CLIP and Mistral
OTHER_TARGETS = {"fuyu": ("query_key_value", "dense_h_to_4h")}  # of Persimmon
SAVED = "embed_tokens"
PARTS: dict[str, dict[str, float]] = {
    "vision": {"learning_rate": 2e-4},
    "projector": {"learning_rate": 4e-3, "weight_decay": 0.0},
    "embeddings": {"weight_decay": 0.3},
}
SAVED_STEPS = 2

State = dict[str, dict[str, torch.Tensor]]  # master and moments of a trained parameter, flat, by its name


def settings_of(training: TrainingSettings, kind: Family, *, stage: int, mixed: bool) -> TrainingSettings:
    """All parts of the family with their own rates; `mixed`: adapters beside a whole projector and a saved module."""
    parts = family_spec(kind.name).parts
    changes: dict[str, Any] = {
        "global_batch_size": BATCH,
        "max_grad_norm": 0.5,
        "weight_decay": 0.05,
        "token_budget": 60,
        "zero_stage": stage,
        "train": parts,
        "parts": {part: values for part, values in PARTS.items() if part in parts},
    }
    if mixed:
        adapter = {"kind": "lora", "rank": 4, "alpha": 8, "rslora": True, "whole": ["projector"]}
        adapter["targets"] = OTHER_TARGETS.get(kind.name, TARGETS)
        changes["adapter"] = adapter | {"modules_to_save": [SAVED]}
    return TrainingSettings.model_validate(training.model_dump() | changes)


def peft_alone(model: Any, adapter: AdapterSettings, kind: Family) -> Any:
    """The model with peft's LoRA; the projector and the saved module are trained as they are."""
    layers = [
        name
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in adapter.targets
        and isinstance(module, torch.nn.Linear)
        and kind.parameter_group(name) != "projector"
    ]
    lora = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, use_rslora=True, target_modules=layers)
    wrapped: Any = get_peft_model(model, lora)
    reference = wrapped.base_model.model.train()
    for name, parameter in reference.named_parameters():
        if kind.parameter_group(name) == "projector" or SAVED in name.split("."):
            parameter.requires_grad_(True)
    return reference


def every_variant(
    mode: str,
    folder: Path,
    variants: list[dict[str, Any]],
    model_settings: ModelSettings,
    training: TrainingSettings,
    reader: MixtureReader,
    ranks: DistributedContext,
) -> list[list[Figures]]:
    kind = family(model_settings.family)
    return [
        take_steps(
            mode,
            folder / f"{kind.name}-{variant['name']}",
            settings_of(training, kind, stage=variant[mode], mixed=variant["mixed"]),
            model_settings,
            reader,
            ranks,
        )
        for variant in variants
    ]


def take_steps(
    mode: str,
    folder: Path,
    settings: TrainingSettings,
    model_settings: ModelSettings,
    reader: MixtureReader,
    ranks: DistributedContext,
) -> list[Figures]:
    kind = family(model_settings.family)
    processor = kind.processor(reader.tokenizer(), model_settings)
    model, reference = (kind.build(processor, seed=3) for _ in range(2))
    engine = build_engine(model, kind, settings)
    if settings.adapter:
        reference = peft_alone(reference, settings.adapter, kind)
    named = dict(reference.named_parameters())
    learned = {name for name, weight in engine.deepspeed.module.named_parameters() if weight.requires_grad}
    differ = learned ^ {name for name, weight in named.items() if weight.requires_grad}
    assert not differ, sorted(differ)
    adam = plain_adamw(reference, kind, settings)
    if mode == "resume":
        go_on(engine, folder, settings, ranks)
    state = state_of(engine)
    for name, values in state.items():
        named[name].data.copy_(values["master"].view(named[name].shape))
        if mode == "resume":
            adam.state[named[name]] = {"step": torch.tensor(float(SAVED_STEPS))} | {
                moment: values[moment].view(named[name].shape).clone() for moment in MOMENTS
            }
    figures = steps_of(
        engine,
        reference,
        LossHead(model),
        kind,
        processor,
        settings,
        reader,
        ranks,
        adam=adam,
        start=SAVED_STEPS if mode == "resume" else 0,
        steps=STEP_SAMPLES // BATCH if mode == "resume" else SAVED_STEPS,
    )
    if mode == "save":
        leave(engine, folder, settings, ranks)
    return figures


def state_of(engine: Engine) -> State:
    """Masters and moments of all trained parameters; without moments before the first step."""
    optimizer = engine.deepspeed.optimizer
    if hasattr(optimizer, "_hp_optimizer_states_linked") and optimizer._hp_optimizer_states_linked:
        optimizer._hp_optimizer_states_linked = False  # as in reshard_checkpoint.py
        optimizer._lazy_init_hp_params_optimizer_state()
    found: State = {}
    for name, parameter in engine.deepspeed.module.named_parameters():
        if parameter.requires_grad:
            found[name] = {"master": safe_get_full_fp32_param(parameter).flatten().clone()}
            for moment in MOMENTS:
                value = safe_get_full_optimizer_state(parameter, moment) if engine.deepspeed.global_steps else None
                if value is not None:
                    found[name][moment] = value.flatten().clone()
    return found


def leave(engine: Engine, folder: Path, settings: TrainingSettings, ranks: DistributedContext) -> None:
    """Store the checkpoint, and the whole state beside it."""
    saver = Saver(
        LocalStore(folder),
        "trained",
        rank=ranks.rank,
        world_size=ranks.world_size,
        zero_stage=settings.zero_stage,
        attempt="first",
        keep=1,
        frozen=settings.adapter is None,
    )
    saver.save(engine.deepspeed, TrainingState(step=SAVED_STEPS, seed=0, groups=engine.groups))
    saver.wait()
    state = state_of(engine)
    if ranks.is_main:
        torch.save(state, folder / "state.pt")
    torch.distributed.barrier()


def go_on(engine: Engine, folder: Path, settings: TrainingSettings, ranks: DistributedContext) -> None:
    """Restore the checkpoint, which other groups cannot; every master and moment is the one that was saved."""
    again = partial(
        restore,
        engine.deepspeed,
        LocalStore(folder),
        "trained",
        ranks,
        zero_stage=settings.zero_stage,
        frozen=settings.adapter is None,
    )
    first, *others = engine.groups
    with pytest.raises(TrainingError, match=rf"was trained with other parameter groups: {first.parts[0]} has learning"):
        again(groups=(first.model_copy(update={"learning_rate": 1.0}), *others))
    state = again(groups=engine.groups)
    assert state is not None
    assert state.step == SAVED_STEPS
    saved, found = torch.load(folder / "state.pt"), state_of(engine)
    assert saved.keys() == found.keys()
    for name, values in saved.items():
        for what, value in values.items():
            assert torch.equal(found[name][what], value), (name, what)


if __name__ == "__main__":
    mode, folder, variants, *rest = sys.argv[1:]
    main(partial(every_variant, mode, Path(folder), json.loads(variants)), *rest)
