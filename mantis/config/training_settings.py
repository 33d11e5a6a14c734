"""The sections `training` and `conversion` of a recipe."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mantis.config.identity import RUNTIME_ONLY, Settings


class ScheduleSettings(Settings):
    """Learning rate over the run: linear warm-up, then `cosine` to zero, or flat and then `linear` to zero."""

    section = "training.schedule"

    kind: Literal["cosine", "linear"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    flat_ratio: float = Field(0.0, ge=0, le=1, description="Linear only: share of the steps before the decay begins.")


Part = Literal["vision", "projector", "text", "cross_attention", "embeddings"]


class AdapterSettings(Settings):
    """Low-rank adapters beside frozen weights, instead of training those."""

    section = "training.adapter"

    kind: Literal["lora", "dora"] = "dora"
    rank: int = Field(8, ge=1)
    alpha: int = Field(8, ge=1, description="The update counts alpha / rank times.")
    dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["kaiming", "gaussian"] = Field("kaiming", description="How A is drawn; B is zero.")
    targets: tuple[str, ...] = Field(
        (),
        description="Last parts of the names of linear layers, e.g. q_proj; empty: all of `train` but the head.",
    )
    quantized: tuple[Part, ...] = Field(
        (), description="Parts whose linear layers are kept in nf4 with double quantization; needs zero_stage 2."
    )


class TrainingSettings(Settings):
    """Optimization, batch, precision, parallelism."""

    section = "training"

    epochs: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1, description="Number of optimizer steps after which training stops.")
    global_batch_size: int = Field(128, ge=1, description="Samples per optimizer step over all ranks.")
    learning_rate: float = Field(1e-5, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, gt=0)
    schedule: ScheduleSettings = ScheduleSettings()
    precision: Literal["fp32", "bf16"] = "bf16"
    gradient_checkpointing: bool = Field(True, json_schema_extra=RUNTIME_ONLY)
    train: tuple[Part, ...] = ("projector", "text")
    adapter: AdapterSettings | None = Field(
        None, description="Train these beside `train`'s linear layers, not `train`."
    )
    seed: int = 42
    zero_stage: Literal[2, 3] = Field(3, json_schema_extra=RUNTIME_ONLY)
    cpu_offload: bool = Field(
        False,
        description="Optimizer states in the host's memory: slower, for few GPUs.",
        json_schema_extra=RUNTIME_ONLY,
    )
    launcher: Literal["local", "trainjob"] = Field("local", json_schema_extra=RUNTIME_ONLY)
    nodes: int = Field(1, ge=1, json_schema_extra=RUNTIME_ONLY)
    gpus_per_node: int = Field(2, ge=1, json_schema_extra=RUNTIME_ONLY)
    token_budget: int = Field(
        8192, ge=32, description="Tokens per micro-step and rank.", json_schema_extra=RUNTIME_ONLY
    )
    patch_budget: int = Field(
        65_536, ge=1, description="Image patches per micro-step and rank.", json_schema_extra=RUNTIME_ONLY
    )
    data_workers: int = Field(
        2, ge=1, description="That decode and preprocess ahead of each rank.", json_schema_extra=RUNTIME_ONLY
    )
    loss_spike_factor: float | None = Field(
        None, gt=1, description="A loss above this multiple of the median of 64 steps before is bad, as NaN always is."
    )
    max_skipped_steps: int = Field(
        0, ge=0, description="Number of bad steps that are left out; one more ends the training."
    )
    hang_timeout_seconds: float = Field(
        600.0,
        gt=0,
        description="The job ends after this time without any progress in a step.",
        json_schema_extra=RUNTIME_ONLY,
    )
    checkpoint_every: int = Field(250, ge=1, description="Steps.", json_schema_extra=RUNTIME_ONLY)
    keep_last: int = Field(2, ge=1, json_schema_extra=RUNTIME_ONLY)
    keep_every: int | None = Field(
        None, ge=1, description="Checkpoints of these steps are kept for good.", json_schema_extra=RUNTIME_ONLY
    )
    log_every: int = Field(10, ge=1, description="Steps.", json_schema_extra=RUNTIME_ONLY)

    @model_validator(mode="after")
    def _quantized_weights_are_not_cut(self) -> Self:
        if self.adapter and self.adapter.quantized and self.zero_stage == 3:
            raise ValueError("adapter.quantized needs zero_stage: 2; ZeRO-3 would cut quantized weights into pieces")
        return self


class ConversionSettings(Settings):
    """What the converted model is stored as."""

    section = "conversion"

    precision: Literal["fp32", "bf16"] = "bf16"
