"""The sections `training` and `conversion` of a recipe."""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from mantis.config.identity import RUNTIME_ONLY, Settings


class ScheduleSettings(Settings):
    """Learning rate over the run: a linear warm-up, then `cosine` to zero, or a flat part and `linear` to zero."""

    section = "training.schedule"

    kind: Literal["cosine", "linear"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    flat_ratio: float = Field(0.0, ge=0, le=1, description="Share of the steps before the decay begins; `linear` only.")


Part = Literal["vision", "projector", "text", "cross_attention", "embeddings"]


class AdapterSettings(Settings):
    """Low-rank adapters, which are trained beside frozen weights."""

    section = "training.adapter"

    kind: Literal["lora", "dora"] = "dora"
    rank: int = Field(8, ge=1)
    alpha: int = Field(8, ge=1, description="The update is scaled by alpha / rank.")
    rslora: bool = Field(
        False, description="Scale the update by alpha / sqrt(rank) instead (rsLoRA, Kalajdzievski 2023)."
    )
    dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["kaiming", "gaussian"] = Field(
        "kaiming", description="Initial distribution of matrix A. Matrix B begins as zero."
    )
    targets: tuple[str, ...] = Field(
        (),
        description="Last parts of the names of linear layers, e.g. q_proj. Empty means all layers of `train` except "
        "the head.",
    )
    whole: tuple[Part, ...] = Field(
        (), description="Parts of `train` whose own weights are trained. The other parts of `train` get the adapters."
    )
    modules_to_save: tuple[str, ...] = Field(
        (),
        description="Names of modules whose own weights are trained and saved, in parts with adapters, e.g. "
        "embed_tokens or lm_head (modules_to_save of peft). They get no adapter.",
    )
    quantized: tuple[Part, ...] = Field(
        (), description="Parts with linear layers in nf4 with double quantization. Requires zero_stage: 2."
    )

    @model_validator(mode="after")
    def _a_layer_is_trained_in_one_way(self) -> Self:
        if both := [part for part in self.whole if part in self.quantized]:
            raise ValueError(
                f"whole and quantized both name {_listed(both)}; quantized weights cannot be trained, so remove it "
                "from one of them"
            )
        if twice := [name for name in self.modules_to_save if name.rsplit(".", 1)[-1] in self.targets]:
            raise ValueError(
                f"modules_to_save and targets both name {_listed(twice)}; a saved module gets no adapter, so remove it "
                "from one of them"
            )
        return self


class PartSettings(Settings):
    """How one part of the model is trained; null means the value of the section `training`."""

    section = "training.parts"

    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the part. It follows `training.schedule`."
    )
    weight_decay: float | None = Field(None, ge=0, description="Weight decay of the part.")


class TrainingSettings(Settings):
    """Optimization, batch, precision, parallelism."""

    section = "training"

    epochs: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1, description="Number of optimizer steps after which training stops.")
    global_batch_size: int = Field(128, ge=1, description="Samples per optimizer step, over all ranks.")
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
        None, description="Train low-rank adapters beside the linear layers of `train`, instead of their weights."
    )
    parts: dict[Part, PartSettings] = Field(
        {}, description="Learning rate and weight decay of parts of `train`, e.g. {vision: {learning_rate: 2.0e-6}}."
    )
    seed: int = 42
    zero_stage: Literal[2, 3] = Field(3, json_schema_extra=RUNTIME_ONLY)
    cpu_offload: bool = Field(
        False,
        description="Keep optimizer states in the host's memory. This is slower, but needs fewer GPUs.",
        json_schema_extra=RUNTIME_ONLY,
    )
    launcher: Literal["local", "trainjob"] = Field("local", json_schema_extra=RUNTIME_ONLY)
    nodes: int = Field(1, ge=1, json_schema_extra=RUNTIME_ONLY)
    gpus_per_node: int = Field(2, ge=1, json_schema_extra=RUNTIME_ONLY)
    token_budget: int = Field(
        8192, ge=32, description="Largest number of tokens per micro-step and rank.", json_schema_extra=RUNTIME_ONLY
    )
    patch_budget: int = Field(
        65_536,
        ge=1,
        description="Largest number of image patches per micro-step and rank.",
        json_schema_extra=RUNTIME_ONLY,
    )
    data_workers: int = Field(
        2, ge=1, description="Threads per rank that decode and preprocess images ahead.", json_schema_extra=RUNTIME_ONLY
    )
    loss_spike_factor: float | None = Field(
        None,
        gt=1,
        description="A step is bad if its loss exceeds this multiple of the median of the last 64, or is NaN.",
    )
    max_skipped_steps: int = Field(0, ge=0, description="Number of bad steps to skip. One more ends the training.")
    hang_timeout_seconds: float = Field(
        600.0,
        gt=0,
        description="The job ends if a step makes no progress for this number of seconds.",
        json_schema_extra=RUNTIME_ONLY,
    )
    checkpoint_every: int = Field(250, ge=1, description="Steps between checkpoints.", json_schema_extra=RUNTIME_ONLY)
    keep_last: int = Field(2, ge=1, json_schema_extra=RUNTIME_ONLY)
    keep_every: int | None = Field(
        None, ge=1, description="Keep the checkpoints of all multiples of this step.", json_schema_extra=RUNTIME_ONLY
    )
    log_every: int = Field(10, ge=1, description="Steps between log lines.", json_schema_extra=RUNTIME_ONLY)
    evaluate_every: int | None = Field(
        None,
        ge=1,
        description="Steps between evaluations of the held-out loss: on the rows of `data.holdout` and of subsets "
        "with `held_out`. The last step is evaluated, too.",
    )
    keep_best: bool = Field(
        False,
        description="Save a checkpoint at each evaluation with the lowest held-out loss so far, and keep the last of "
        "these.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Training stops after this number of evaluations in a row without a lower held-out loss.",
    )

    @model_validator(mode="after")
    def _quantized_weights_are_not_cut(self) -> Self:
        if self.adapter and self.adapter.quantized and self.zero_stage == 3:
            raise ValueError("adapter.quantized needs zero_stage: 2; ZeRO-3 would cut quantized weights into pieces")
        return self

    @model_validator(mode="after")
    def _a_best_step_needs_evaluations(self) -> Self:
        if self.evaluate_every is None and (self.keep_best or self.patience):
            name = "keep_best" if self.keep_best else "patience"
            raise ValueError(f"training.{name} needs the held-out loss: set training.evaluate_every")
        return self

    @model_validator(mode="after")
    def _parts_are_trained(self) -> Self:
        train = f"train = [{', '.join(self.train)}]"
        if frozen := [part for part in self.parts if part not in self.train]:
            raise ValueError(
                f"parts names {frozen[0]}, but {train} freezes it; add it to train, or remove it from parts"
            )
        if idle := [part for part, own in self.parts.items() if own == PartSettings()]:
            raise ValueError(
                f"parts.{idle[0]} sets nothing; give learning_rate or weight_decay, or remove {idle[0]} from parts"
            )
        if not self.adapter:
            return self
        if frozen := [part for part in self.adapter.whole if part not in self.train]:
            raise ValueError(
                f"adapter.whole names {frozen[0]}, but {train} freezes it; add it to train, or remove it from whole"
            )
        if self.train and not set(self.train) - set(self.adapter.whole):
            raise ValueError(
                f"adapter.whole = [{', '.join(self.adapter.whole)}] leaves no part of {train} for adapters; remove a "
                "part from whole, or remove adapter"
            )
        return self

    @property
    def whole_parts(self) -> tuple[Part, ...]:
        """The parts whose own weights are trained."""
        return self.adapter.whole if self.adapter else self.train

    @property
    def adapted_parts(self) -> tuple[Part, ...]:
        """The parts whose linear layers get adapters."""
        return tuple(part for part in self.train if part not in self.adapter.whole) if self.adapter else ()

    def steps_of(self, samples: int) -> int:
        """Optimizer steps of a training on a mixture of `samples` samples; its plan has as many."""
        whole = -(-samples * self.epochs // self.global_batch_size)
        return min(whole, self.max_steps or whole)

    def peak_rate(self, part: Part) -> float:
        """The peak learning rate of a part."""
        own = self.parts.get(part)
        return self.learning_rate if own is None or own.learning_rate is None else own.learning_rate

    def decay(self, part: Part) -> float:
        """The weight decay of a part."""
        own = self.parts.get(part)
        return self.weight_decay if own is None or own.weight_decay is None else own.weight_decay


class ConversionSettings(Settings):
    """The form of the converted model."""

    section = "conversion"

    checkpoint: Literal["last", "best"] = Field(
        "last", description="`best` converts the step with the lowest held-out loss, which training.keep_best saves."
    )
    precision: Literal["fp32", "bf16"] = "bf16"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
