"""A recipe: everything a run means, as one frozen, validated value.

Fields marked `RUNTIME_ONLY` decide how a result is computed, not its content (launcher, processes, checkpoint
cadence). They stay out of fingerprints, so a change of them reuses the results in the store. identity.py says how the
other fields enter.
"""

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from mantis.config.identity import RUNTIME_ONLY, Settings
from mantis.config.migrations import migrate, present_name
from mantis.errors import ConfigError, did_you_mean
from mantis.hashing import fingerprint
from mantis.progress import say
from mantis.schema_versions import CURRENT, FIELD, Form, check_version

EVERY_FIELD = "`mantis recipe fields` explains every field."
SCRATCH = "scratch"  # the value of model.base for models that are built from nothing

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
# What an API server takes for an amount, and for the name of a queue: it would refuse others at `train` only.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$", coerce_numbers_to_str=True)]
QueueName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?)?$")]


class ImageSettings(Settings):
    """How a model cuts images. Data preparation counts tokens by it, so published weights must agree with it."""

    section = "model.image"

    size: int = Field(
        48, ge=8, description="Edge of an image in pixels; the longest edge where images keep their shape."
    )
    width: int | None = Field(
        None, ge=8, description="Largest width in pixels, where it differs from the largest height (Fuyu)."
    )
    patch_size: int = Field(24, ge=4, description="Edge of a patch in pixels.")
    feature_layer: int = Field(
        -1, description="vision_feature_layer of transformers: the layer of the tower whose output is used."
    )
    feature_select: Literal["", "default", "full"] = Field(
        "",
        description="vision_feature_select_strategy of transformers: `default` drops the first position. Empty: the "
        "family's own. The released Mantis-SigLIP has `default`, and so one patch less.",
    )
    latents: int = Field(4, ge=1, description="Latents that a resampler makes of an image.")


class FromScratch(Settings):
    """Shape of a model that is built from nothing. Widths count units, layers and heads count modules."""

    section = "model.from_scratch"

    vision_width: int = Field(96, ge=8)
    vision_layers: int = Field(2, ge=1)
    vision_heads: int = Field(4, ge=1)
    vision_position_std: float = Field(
        0.5,
        gt=0,
        description="Standard deviation of the tower's position embeddings at the start. From scratch, CLIP's 0.02 "
        "leaves place and motion unlearned for thousands of steps.",
    )
    text_width: int = Field(128, ge=8)
    text_layers: int = Field(3, ge=1)
    text_heads: int = Field(4, ge=1)
    text_mlp_ratio: float = Field(3.0, gt=0, description="Width of the MLP as a multiple of text_width.")
    vocabulary: int = Field(4096, ge=300, description="Largest number of tokens in the tokenizer that assemble trains.")


class ModelSettings(Settings):
    """Which model is trained, and from what."""

    section = "model"

    family: Name = "llava-clip"
    base: str = Field(
        SCRATCH,
        description="`scratch`: built in the shape of `from_scratch`, with a tokenizer trained on the mixture. Else a "
        "published model's name (`mantis model list`), a key in the store such as models/<fingerprint>, or the folder, "
        "file:// or s3:// URL of a model: a whole one of the family, or with `vision` the language model alone.",
    )
    vision: str = Field(
        "", description="Name, folder or URL of the CLIP or SigLIP tower to put before the LLaMA in `base`."
    )
    projector: str = Field("", description="Name, folder or URL of the model of stage 1 whose projector is taken.")
    prompt: Name = Field("llama3", description="A chat template: `compact`, or one of a family's.")
    image: ImageSettings = ImageSettings()
    from_scratch: FromScratch | None = Field(
        None,
        validate_default=True,
        description="Only with `base: scratch`, where it may be left out. Every other base has a shape of its own.",
    )

    @field_validator("from_scratch", mode="before")
    @classmethod
    def _only_with_base_scratch(cls, value: Any, info: ValidationInfo) -> Any:
        base = info.data.get("base")  # absent where it is wrong itself
        if base == SCRATCH:
            return {} if value is None else value
        if value is not None and base is not None:
            raise ValueError(
                f"model.base = {base!r} has its own shape; remove the section (model.from_scratch=null), or set "
                f"model.base={SCRATCH}"
            )
        return None

    @property
    def scratch_shape(self) -> FromScratch | None:
        """The shape to build a model in; None where `base` names weights, even if `model_copy` put them there."""
        return self.from_scratch if self.base == SCRATCH else None

    def identity(self, *names: str) -> dict[str, Any]:
        """As in `Settings`. A model from published weights has no shape, even if `model_copy` put one there."""
        if self.scratch_shape is None and self.from_scratch is not None:
            return self.model_copy(update={"from_scratch": None}).identity(*names)
        return super().identity(*names)

    @model_serializer(mode="wrap")
    def _without_an_absent_shape(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.scratch_shape is None:
            written.pop("from_scratch", None)
        return written


class SubsetSettings(Settings):
    """One subset of the mixture."""

    section = "data.subsets"

    name: Name
    cap: int | None = Field(None, ge=1, description="At most so many rows, drawn by the seed.")
    repeat: int = Field(1, ge=1)
    max_images: int | None = Field(None, ge=1, description="Rows of more images go to the ledger.")


Sampling = Literal["none", "sqrt"]


class DataSettings(Settings):
    """The data mixture."""

    section = "data"

    source: str = Field(
        "generated",
        description="`generated` (the demo's tasks), `fetched` (the sets of `mantis data fetch`), a folder, or a "
        "store URL with raw data.",
    )
    generated_conversations: int = Field(20_000, ge=10)
    mixture: Name | None = Field(None, description="A mixture of components/data/mixture/mixtures.yaml.")
    skills: tuple[Name, ...] = Field((), description="Only the mixture's subsets of these skills; empty: all.")
    subsets: tuple[SubsetSettings, ...] = Field(
        (), description="Empty: those of `mixture`; without one, every subset found at the source."
    )
    sampling: Sampling = Field(
        "none", description="`sqrt`: subsets are seen in proportion to the square root of their rows."
    )
    context_length: int = Field(8192, ge=32, description="Tokens per sample, expanded image tokens included.")
    max_turn_characters: int = Field(
        65_536, ge=1, description="Rows with a longer turn go to the ledger: far more than a context holds."
    )
    max_image_pixels: int = Field(64_000_000, ge=1)
    max_image_bytes: int = Field(32_000_000, ge=1)
    workers: int = Field(2, ge=1, json_schema_extra=RUNTIME_ONLY)
    cache_gb: float = Field(
        0.0,
        ge=0,
        description="Of rows that training keeps on each node's disk (MANTIS_CACHE, default ~/.cache/mantis); 0: none. "
        "Pays where an epoch is repeated and the store is slower than training.",
        json_schema_extra=RUNTIME_ONLY,
    )

    def subset(self, name: str) -> SubsetSettings:
        """What is said about the subset `name`; the defaults where nothing is."""
        named = (settings for settings in self.subsets if settings.name == name)
        return next(named, SubsetSettings(name=name))


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
    max_steps: int | None = Field(None, ge=1, description="Stop after so many optimizer steps.")
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
    max_skipped_steps: int = Field(0, ge=0, description="So many bad steps are left out; one more ends the training.")
    hang_timeout_seconds: float = Field(
        600.0,
        gt=0,
        description="Without any progress in a step for so long, the job ends.",
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


class EvaluationSettings(Settings):
    """Benchmarks and how they are answered and scored."""

    section = "evaluation"

    source: str = Field(
        "generated",
        description="`generated`, `mirror` (of `mantis benchmark fetch`, in the store), a folder or a store URL.",
    )
    benchmarks: tuple[Name, ...] = ()
    prompt: Name = Field("mantis", description="A prompt profile of the benchmarks' files.")
    samples_per_skill: int = Field(500, ge=1, description="Held-out instances per skill of generated benchmarks.")
    decoding: Name = "greedy-short"
    scoring: Literal["official", "strict"] = "official"
    controls: tuple[Literal["blind", "shuffled"], ...] = ("blind", "shuffled")
    layout: Literal["sequence", "merge"] = Field(
        "sequence", description="Several pictures in their places, or side by side as one, for models that take one."
    )
    reference: str = Field(
        "",
        description="The model of the published tables that the scores are held to, e.g. Mantis-CLIP.",
        json_schema_extra=RUNTIME_ONLY,
    )
    batch_tokens: int = Field(
        32_768, ge=32, description="Positions per batch, padding and answers included.", json_schema_extra=RUNTIME_ONLY
    )
    batch_patches: int = Field(65_536, ge=1, description="Image patches per batch.", json_schema_extra=RUNTIME_ONLY)
    processes: int = Field(
        0,
        ge=0,
        description="That answer at the same time; 0: one per GPU, one on a CPU.",
        json_schema_extra=RUNTIME_ONLY,
    )


class ClusterSettings(Settings):
    """Where `training.launcher: trainjob` runs the ranks. None of it decides a result."""

    section = "cluster"

    namespace: Name = Field("mantis", description="Of the TrainJobs; has the Secret mantis-store.")
    image: str = Field("", description="Of the ranks; empty: the image that the launching step itself runs in.")
    runtime: Name = Field("mantis-deepspeed", description="The ClusterTrainingRuntime.")
    queue: QueueName = Field("", description="A LocalQueue of Kueue; the job waits in it for as long as it takes.")
    resources: dict[str, Quantity] = Field(
        {}, description="Per node, instead of the runtime's, e.g. {nvidia.com/gpu: 4, memory: 400Gi}."
    )


class TrackingSettings(Settings):
    """Where runs are shown."""

    section = "tracking"

    experiment: str = "mantis"


class Recipe(Settings):
    """A whole run. `identity()` leaves out what does not decide results."""

    schema_version: int = Field(CURRENT[Form.RECIPE], description="Of this form.", json_schema_extra=RUNTIME_ONLY)
    name: Name
    description: str = ""
    seed: int = Field(0, ge=0, description="Of generated data, of caps and of weights that are built from nothing.")
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    conversion: ConversionSettings = ConversionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()
    cluster: ClusterSettings = Field(ClusterSettings(), json_schema_extra=RUNTIME_ONLY)

    @model_validator(mode="after")
    def _no_subset_twice(self) -> Self:
        names = [subset.name for subset in self.data.subsets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data.subsets names {', '.join(twice)} twice; use `repeat` to see rows more than once")
        return self

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, every field written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def default_run_id(self) -> str:
        """Name that the same resolved recipe always gets: `<name>-<8 hex digits>`."""
        return f"{self.name}-{fingerprint(self.identity())[:8]}"


def parse_recipe(text: str, *, origin: str, overrides: dict[str, str] | None = None) -> Recipe:
    """Recipe from YAML text that a person wrote, with dotted `overrides` (values are YAML too).

    Raises:
        ConfigError: not YAML, or a field that is unknown or has a wrong value; names field, value and remedy.
        VersionError: it says a later schema version.
    """
    raw = _raw_recipe(text, origin)
    for key, value in (overrides or {}).items():
        _override(raw, key, value)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, origin), remedy=_known_fields(error)) from None


def read_stored_recipe(text: str, *, origin: str) -> Recipe:
    """Recipe from YAML text that this program or an earlier version of it stored.

    Renamed fields get their present names. A field that no longer exists is left out, and a log line names it.

    Raises:
        ConfigError: not YAML, or a field has a value that it does not take any more.
        VersionError: a later version of this program stored it.
    """
    raw = _raw_recipe(text, origin)
    migrate(raw, origin=origin)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        unknown = [item for item in error.errors() if item["type"] == "extra_forbidden"]
        for item in unknown:
            dotted = ".".join(map(str, item["loc"]))
            say(f"{origin}: {dotted} = {_short(item['input'])} is not a field any more and is ignored")
            _remove(raw, item["loc"])
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(
            explain(error, origin), remedy="Correct the stored recipe, or start a new run from it."
        ) from None


def _raw_recipe(text: str, origin: str) -> dict[str, Any]:
    """The mapping of a recipe's YAML, as of the current schema version."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{origin} is not YAML: {error}.", remedy="Correct it, or start from a shipped recipe."
        ) from None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{origin} holds {type(raw).__name__}, not a mapping of sections.", remedy="Start from a shipped recipe."
        )
    check_version(Form.RECIPE, raw, origin)
    return {**raw, FIELD: CURRENT[Form.RECIPE]}


def _remove(raw: Any, path: tuple[int | str, ...]) -> None:
    *parents, last = path
    for parent in parents:
        raw = raw[parent]
    del raw[last]


def load_recipe_file(path: Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Recipe from a YAML file; see `parse_recipe`."""
    return parse_recipe(path.read_text(), origin=str(path), overrides=overrides)


def _override(raw: dict[str, Any], dotted: str, value: str) -> None:
    node: Any = raw
    *parents, last = dotted.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {dotted}: {parent} is a single value.", remedy="Set it whole, as YAML.")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(
            f"--set {dotted}: {value!r} is not YAML.", remedy="Quote it, e.g. --set 'a.b=[1, 2]'."
        ) from None
    # YAML 1.1 reads 5e-6 as text; a person who writes it means a number.
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    node[last] = parsed


def explain(error: ValidationError, origin: str) -> str:
    """Every field of `origin` that does not hold, with its value and why."""
    problems = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "the whole"
        if item["type"] == "extra_forbidden":
            problems += _unknown(field, item["input"])
        elif item["type"] == "tuple_type":
            problems.append(f"{field} = {_short(item['input'])} is not a list; write [{item['input']}]")
        else:
            problems.append(f"{field} = {_short(item['input'])}: {item['msg'].removeprefix('Value error, ')}")
    return f"{origin}: {'; '.join(problems)}."


def _unknown(field: str, value: Any) -> list[str]:
    """The problem of an unknown field or section; each renamed field of the section under its own name."""
    leaves = _leaves(field, value)
    if all(present_name(name) == name for name, _ in leaves):
        return [f"{field} = {_short(value)} is not a field"]
    return [_not_a_field(name, item) for name, item in leaves]


def _leaves(field: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(field, value)]
    return [leaf for name, item in value.items() for leaf in _leaves(f"{field}.{name}", item)]


def _not_a_field(field: str, value: Any) -> str:
    present = present_name(field)
    renamed = f" any more: it is {present} now" if present != field else ""
    return f"{field} = {_short(value)} is not a field{renamed}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _known_fields(error: ValidationError) -> str:
    unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
    if not unknown:
        return EVERY_FIELD
    section: type[BaseModel] = Recipe
    for part in unknown[0][:-1]:
        field = section.model_fields.get(str(part))
        below = [] if field is None else [field.annotation, *get_args(field.annotation)]
        sections = [kind for kind in below if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not sections:
            return EVERY_FIELD
        section = sections[0]
    close = did_you_mean(str(unknown[0][-1]), section.model_fields)
    return f"{close}Fields here: {', '.join(section.model_fields)}."
