"""DeepSpeed's configuration, each value with the reason why it is set."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mantis.config.training_settings import TrainingSettings

SMALL_PARAMETERS = 50_000_000  # below this size, calls cost more than bytes


@dataclass(frozen=True, kw_only=True)
class ConfigOption:
    """One value of DeepSpeed's configuration; `key` is dotted if it lies in a section."""

    key: str
    value: Any
    why: str

    def to_json(self) -> dict[str, Any]:
        """The form in engine.json."""
        return asdict(self)


def deepspeed_options(settings: TrainingSettings, *, parameters: int, cuda: bool) -> tuple[ConfigOption, ...]:
    """DeepSpeed's options for a model of `parameters` parameters, on GPUs (`cuda`) or CPUs."""
    return (
        *_batch_options(settings),
        *_zero_options(settings, cuda=cuda),
        *(_small_options(settings.zero_stage, parameters) if parameters < SMALL_PARAMETERS else ()),
        *(_offload_options() if settings.cpu_offload else ()),
    )


def as_config(options: Iterable[ConfigOption]) -> dict[str, Any]:
    """The options as DeepSpeed's nested mapping."""
    config: dict[str, Any] = {}
    for option in options:
        *sections, last = option.key.split(".")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = option.value
    return config


def as_text(options: Iterable[ConfigOption]) -> str:
    """A line for each option, for the log."""
    options = tuple(options)
    width = max(len(f"{option.key} = {option.value}") for option in options)
    return "\n".join(f"  {f'{option.key} = {option.value}':<{width}}  {option.why}" for option in options)


def _batch_options(settings: TrainingSettings) -> tuple[ConfigOption, ...]:
    plan = "the plan decides the samples of a step; the trainer marks the last micro-step"
    half = settings.precision == "bf16"
    return (
        ConfigOption(key="train_micro_batch_size_per_gpu", value=1, why=plan),
        ConfigOption(key="gradient_accumulation_steps", value=1, why=plan),
        ConfigOption(key="gradient_clipping", value=settings.max_grad_norm, why="training.max_grad_norm"),
        ConfigOption(key="steps_per_print", value=None, why="the callbacks report"),
        ConfigOption(key="zero_allow_untested_optimizer", value=False, why="DeepSpeed's default: it knows AdamW"),
        ConfigOption(
            key="bf16.enabled",
            value=half,
            why="training.precision: bf16 weights and activations, fp32 masters and moments" if half else "all in fp32",
        ),
        ConfigOption(
            key="data_types.grad_accum_dtype",
            value="fp32",
            why="gradients of micro-steps are summed in fp32, whatever their own precision",
        ),
    )


def _zero_options(settings: TrainingSettings, *, cuda: bool) -> tuple[ConfigOption, ...]:
    options = [
        ConfigOption(key="zero_optimization.stage", value=settings.zero_stage, why="training.zero_stage"),
        ConfigOption(
            key="zero_optimization.contiguous_gradients", value=True, why="one buffer of gradients avoids fragmentation"
        ),
        ConfigOption(
            key="zero_optimization.overlap_comm",
            value=cuda,
            why="reduces during the backward pass" if cuda else "gloo has no streams to overlap on",
        ),
    ]
    if settings.zero_stage == 3 and settings.nodes > 1:
        options.append(
            ConfigOption(
                key="zero_optimization.zero_hpz_partition_size",
                value=settings.gpus_per_node,
                why="each node holds a whole copy of the weights (hpZ): backward gathers stay within the node",
            )
        )
    return tuple(options)


def _small_options(stage: int, parameters: int) -> tuple[ConfigOption, ...]:
    """Options of small models, where calls cost more than bytes: one bucket, as few collectives as possible."""
    zero: list[tuple[str, Any, str]] = [
        (
            "reduce_bucket_size",
            parameters,
            "DeepSpeed allocates the whole bucket: its default of 5e8 elements takes 2 GB per rank",
        ),
        ("reduce_scatter", False, "one all-reduce of the bucket instead of one slice per gradient"),
    ]
    if stage == 3:
        zero += [
            (
                "stage3_param_persistence_threshold",
                0,
                "persistent parameters are gathered one by one after every step; the others are gathered together",
            ),
            ("stage3_prefetch_bucket_size", parameters, "all weights in one gather"),
            (
                "memory_efficient_linear",
                False,
                "it saves memory only if weights are released between forward and backward; here they stay, and "
                "its backward is in Python",
            ),
        ]
    return tuple(ConfigOption(key=f"zero_optimization.{key}", value=value, why=why) for key, value, why in zero)


def _offload_options() -> tuple[ConfigOption, ...]:
    return (
        ConfigOption(
            key="zero_optimization.offload_optimizer",
            value={"device": "cpu", "pin_memory": True},
            why="training.cpu_offload: host memory holds masters and moments, 12 bytes per parameter",
        ),
        ConfigOption(
            key="zero_force_ds_cpu_optimizer",
            value=False,
            why="torch's fused AdamW also runs on the CPU; DeepSpeed's needs nvcc to compile at the start",
        ),
    )
