"""DeepSpeed: processes, the engine's configuration, and the model inside it."""

import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

# DeepSpeed picks its accelerator when it is imported; without this it looks for a GPU's toolchain on a machine of CPUs.
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import deepspeed.ops
from torch import Tensor, nn
from transformers import PreTrainedModel

from components.core.errors import ConfigError, TrainingError
from components.core.settings import TrainingSettings
from components.models.family import Family
from components.training.plan import CostModel
from components.training.whole import treat_as_one

COLLECTIVE_MINUTES = 30
SMALL_PARAMETERS = 50_000_000  # below that, calls cost more than bytes


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all; `device` is where its tensors live."""

    rank: int
    world_size: int
    device: torch.device
    local: int = 0  # among those of its node, which have neighbouring ranks

    @property
    def first(self) -> bool:
        return self.rank == 0


def join_ranks() -> Ranks:
    """Meet the other ranks that torchrun started, over NCCL with CUDA and gloo without.

    Raises:
        ConfigError: not started by torchrun.
    """
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "RANK, WORLD_SIZE and LOCAL_RANK are not set.",
            remedy="Start it with torchrun: torchrun --nproc-per-node 2 -m components.training ...",
        )
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    else:
        # One rank per core: more threads than cores make every rank slower.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        # DeepSpeed would compile its shared-memory collective here, for a minute and with g++ and ninja, but only
        # tensor-parallel inference ever calls it.
        deepspeed.ops.__compatible_ops__ = {}
    # DeepSpeed calls collectives by names that this torch has renamed: a warning per call site and rank.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    deepspeed.init_distributed("nccl" if cuda else "gloo", verbose=False, timeout=timedelta(minutes=COLLECTIVE_MINUTES))
    return Ranks(
        rank=torch.distributed.get_rank(),
        world_size=torch.distributed.get_world_size(),
        device=device,
        local=int(os.environ["LOCAL_RANK"]),
    )


def leave_ranks() -> None:
    """Say goodbye to the other ranks."""
    torch.distributed.destroy_process_group()


def engine_config(settings: TrainingSettings, *, parameters: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a model of `parameters` parameters."""
    config: dict[str, Any] = {
        # The plan decides what a step holds and how it is divided; the engine is told where a step ends.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.gradient_clipping,
        "steps_per_print": None,  # the loop reports
        "zero_allow_untested_optimizer": False,
        "bf16": {"enabled": settings.precision == "bf16"},
        # Micro-steps are added up in fp32 whatever they were computed in.
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": settings.zero_stage,
            "contiguous_gradients": True,
            # gloo has no streams to overlap on.
            "overlap_comm": torch.cuda.is_available(),
        },
    }
    if parameters < SMALL_PARAMETERS:
        config["zero_optimization"] |= small_model_options(settings.zero_stage, parameters)
    return config


def small_model_options(stage: int, parameters: int) -> dict[str, Any]:
    """ZeRO's options where calls cost more than bytes: everything in one bucket, as few collectives as possible."""
    options: dict[str, Any] = {
        # The bucket is allocated whole; the default of 5e8 elements is 2 GB per rank.
        "reduce_bucket_size": parameters,
        # One all-reduce of the bucket instead of slicing every gradient for a reduce-scatter.
        "reduce_scatter": False,
    }
    if stage == 3:
        options |= {
            # A persistent parameter is gathered alone after every step; others are gathered together.
            "stage3_param_persistence_threshold": 0,
            "stage3_prefetch_bucket_size": parameters,
            # Saves memory when weights are released between forward and backward. These are not, and its backward
            # is Python.
            "memory_efficient_linear": False,
        }
    return options


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The model in training, and the few calls the loop makes."""

    deepspeed: Any  # deepspeed.DeepSpeedEngine, which publishes no types
    parameters: int
    config: dict[str, Any]
    trained: tuple[nn.Parameter, ...]

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.config["bf16"]["enabled"] else torch.float32

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of one micro-step; `last` of its optimizer step.

        Raises:
            TrainingError: ZeRO-3 did not take a gradient over, which would train a wrong model.
        """
        self.deepspeed.set_gradient_accumulation_boundary(last)
        self.deepspeed.backward(loss)
        # Under ZeRO-3 no gradient outlives its reduction: one that does came too late for it.
        stage = self.config["zero_optimization"]["stage"]
        if stage == 3 and any(parameter.grad is not None for parameter in self.trained):
            raise TrainingError(
                "DeepSpeed left gradients unreduced.",
                remedy="This is a bug of this program: report the model and the version of DeepSpeed.",
            )

    def step(self, learning_rate: float) -> float:
        """Clip, update, and return the gradient's norm before clipping."""
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        self.deepspeed.step()
        return float(self.deepspeed.get_global_grad_norm())


def build_engine(model: PreTrainedModel, family: Family, settings: TrainingSettings) -> Engine:
    """Freeze what the recipe does not train, and hand the model to DeepSpeed."""
    freeze(model, family, settings)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    parameters = sum(parameter.numel() for parameter in model.parameters())
    config = engine_config(settings, parameters=parameters)
    if parameters < SMALL_PARAMETERS and settings.zero_stage == 3:
        treat_as_one(model)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,  # one pass over the flat shard instead of a dozen
    )
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    trained = tuple(parameter for parameter in model.parameters() if parameter.requires_grad)
    return Engine(deepspeed=engine, parameters=parameters, config=config, trained=trained)


def freeze(model: nn.Module, family: Family, settings: TrainingSettings) -> None:
    """Only the parts in `training.train` keep gradients.

    Raises:
        ConfigError: nothing would be trained.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(family.part_of(name) in settings.train)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            f"training.train = {list(settings.train)} leaves nothing to train.",
            remedy="Name at least one of vision, projector, text.",
        )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters for AdamW; norms and biases do not decay, as in the trainer of transformers."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weight_decay:
        return [{"params": trained, "weight_decay": 0.0}]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def cost_model(model: PreTrainedModel, family: Family, settings: TrainingSettings) -> CostModel:
    """Relative time of a sample's parts, from parameter counts; a frozen part runs forward only, a third of the work.

    A token costs 2 N FLOP forward for N text parameters, causal attention over T tokens 2 L d T^2 for L layers of
    width d, an image patch 2 N of the vision tower.
    """
    counts = {"vision": 0, "projector": 0, "text": 0}
    for name, parameter in model.named_parameters():
        counts[family.part_of(name)] += parameter.numel()
    text = model.config.get_text_config()
    vision_work = 1.0 if "vision" in settings.train else 1 / 3
    return CostModel(
        quadratic=text.num_hidden_layers * text.hidden_size / counts["text"],
        patch=vision_work * counts["vision"] / counts["text"],
    )
