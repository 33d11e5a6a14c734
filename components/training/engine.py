"""DeepSpeed: processes, and the engine with the model inside it."""

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
from components.training.adapters import add_adapters, is_adapter
from components.training.engine_options import SMALL_PARAMETERS, Option, as_config, engine_options
from components.training.loss import LossHead
from components.training.whole import treat_as_one

COLLECTIVE_MINUTES = 30


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

    def add_up(self, *values: float) -> list[float]:
        """The sum of each value over all ranks; collective."""
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return [float(value) for value in summed.tolist()]

    def gather(self, *values: float) -> list[list[float]]:
        """The values of every rank, in the order of ranks; collective."""
        own = torch.tensor(values, dtype=torch.float64, device=self.device)
        found = [torch.empty_like(own) for _ in range(self.world_size)]
        torch.distributed.all_gather(found, own)
        return [one.tolist() for one in found]


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


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The model in training, and the few calls the loop makes."""

    deepspeed: Any  # deepspeed.DeepSpeedEngine, which publishes no types
    parameters: int
    options: tuple[Option, ...]
    trained: tuple[nn.Parameter, ...]
    head: LossHead
    zero_stage: int
    dtype: torch.dtype

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of one micro-step; `last` of its optimizer step.

        Raises:
            TrainingError: ZeRO-3 did not take a gradient over, which would train a wrong model.
        """
        self.deepspeed.set_gradient_accumulation_boundary(last)
        self.deepspeed.backward(loss)
        # Under ZeRO-3 no gradient outlives its reduction: one that does came too late for it.
        if self.zero_stage == 3 and any(parameter.grad is not None for parameter in self.trained):
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
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if settings.adapter:
        add_adapters(model, family, settings, seed=settings.seed)
    freeze(model, family, settings)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    options = engine_options(settings, parameters=parameters, cuda=torch.cuda.is_available())
    head = LossHead(model)
    if parameters < SMALL_PARAMETERS and settings.zero_stage == 3:
        treat_as_one(model)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        fused=True,  # one pass over the flat shard instead of a dozen
    )
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=as_config(options))
    return Engine(
        deepspeed=engine,
        parameters=parameters,
        options=options,
        trained=tuple(parameter for parameter in model.parameters() if parameter.requires_grad),
        head=head,
        zero_stage=settings.zero_stage,
        dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float32,
    )


def freeze(model: nn.Module, family: Family, settings: TrainingSettings) -> None:
    """Only the parts in `training.train`, or the adapters, keep gradients.

    Raises:
        ConfigError: nothing would be trained.
    """
    for name, parameter in model.named_parameters():
        trained = is_adapter(name) if settings.adapter else family.part_of(name) in settings.train
        parameter.requires_grad_(trained)
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
