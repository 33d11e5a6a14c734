"""DeepSpeed: processes, and the engine with the model inside it."""

import atexit
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from components.training.engine.adapter_training import add_adapters
from components.training.engine.deepspeed_config import SMALL_PARAMETERS, ConfigOption, as_config, deepspeed_options
from components.training.engine.flight_recorder import dump_of_nccl, record_collectives
from components.training.engine.lean_deepspeed import deepspeed
from components.training.engine.parameter_groups import ParameterGroup, adamw_groups, freeze, parameter_groups
from components.training.engine.zero3_leaf import as_zero3_leaf
from components.training.loss import LossHead
from mantis.config.training_settings import Part, TrainingSettings
from mantis.errors import ConfigError, TrainingError
from mantis.models.family import Family
from mantis.processes import end_process, keep_freed_memory

logger = logging.getLogger(__name__)

COLLECTIVE_SECONDS = 1800.0
LATER_SECONDS = 300.0  # by which a collective gives up after the watchdog, whose error names the rank


@dataclass(frozen=True, kw_only=True)
class DistributedContext:
    """This process among all ranks of a training; its tensors live on `device`."""

    rank: int
    world_size: int
    device: torch.device
    local_rank: int = 0  # rank within its node; the ranks of a node are consecutive

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce_sum(self, *values: float) -> list[float]:
        """The sum of each value over all ranks; collective."""
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return [float(value) for value in summed.tolist()]

    def gather(self, *values: float) -> list[list[float]]:
        """The values of every rank, [ranks][values]; collective."""
        own = torch.tensor(values, dtype=torch.float64, device=self.device)
        found = [torch.empty_like(own) for _ in range(self.world_size)]
        torch.distributed.all_gather(found, own)
        return [one.tolist() for one in found]


def join_ranks(*, hang_seconds: float = 0.0) -> DistributedContext:
    """Meet the other ranks that torchrun started, over NCCL with CUDA and gloo without.

    Args:
        hang_seconds: the watchdog's patience; collectives wait longer.

    Raises:
        ConfigError: torchrun did not start this process.
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
        keep_freed_memory()
        # One rank per core: more threads than cores make every rank slower.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        # DeepSpeed would compile its shared-memory collective here, which takes a minute, g++ and ninja. Only
        # tensor-parallel inference calls it.
        deepspeed.ops.__compatible_ops__ = {}
    # DeepSpeed calls collectives by deprecated names: one warning per call site and rank.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    record_collectives()
    patience = timedelta(seconds=max(COLLECTIVE_SECONDS, hang_seconds + LATER_SECONDS))
    deepspeed.init_distributed("nccl" if cuda else "gloo", verbose=False, timeout=patience)
    if cuda:
        logger.info("If NCCL gives up, the last collectives are in %s", dump_of_nccl(torch.distributed.get_rank()))
    return DistributedContext(
        rank=torch.distributed.get_rank(),
        world_size=torch.distributed.get_world_size(),
        device=device,
        local_rank=int(os.environ["LOCAL_RANK"]),
    )


def leave_ranks() -> NoReturn:
    """Leave the process group, run the exit handlers, and end this process with code 0.

    The interpreter is not finalized, because DeepSpeed keeps gloo's threads alive until then. Such a thread may hold a
    tensor of the last collective. If it frees the tensor that late, the process aborts (pytorch#179291).
    """
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    end_process(0)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The model in training.

    Args:
        deepspeed: the DeepSpeed engine.
        parameters: parameters of the model without adapters, trained or not.
        options: DeepSpeed's options, each with its reason.
        trained: the parameters that are trained.
        head: computes losses from hidden states.
        zero_stage: DeepSpeed's ZeRO stage.
        dtype: the dtype of weights and activations.
        groups: the optimizer's parameter groups, in its order.
        peak_rate: `training.learning_rate`.
    """

    deepspeed: Any  # deepspeed.DeepSpeedEngine, which publishes no types
    parameters: int
    options: tuple[ConfigOption, ...]
    trained: tuple[nn.Parameter, ...]
    head: LossHead
    zero_stage: int
    dtype: torch.dtype
    groups: tuple[ParameterGroup, ...]
    peak_rate: float

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of one micro-step; `last` marks the last micro-step of an optimizer step.

        Raises:
            TrainingError: ZeRO-3 missed a gradient, so the model would be wrong.
        """
        self.deepspeed.set_gradient_accumulation_boundary(last)
        self.deepspeed.backward(loss)
        # ZeRO-3 frees every gradient when it reduces it: a gradient that still exists came too late.
        if self.zero_stage == 3 and any(parameter.grad is not None for parameter in self.trained):
            raise TrainingError(
                "DeepSpeed left gradients unreduced.",
                remedy="This is a bug of this program: report the model and the version of DeepSpeed.",
            )

    def step(self, learning_rate: float) -> float:
        """Clip and update with `learning_rate`; returns the gradient's norm before clipping.

        A part with a rate of its own follows the same schedule to its own peak.
        """
        for own, group in zip(self.groups, self.deepspeed.optimizer.param_groups, strict=True):
            group["lr"] = self._scaled(own, learning_rate)
        self.deepspeed.step()
        return float(self.deepspeed.get_global_grad_norm())

    def part_rates(self, learning_rate: float) -> Mapping[Part, float]:
        """The learning rate of each trained part in a step with `learning_rate`."""
        return {part: self._scaled(group, learning_rate) for group in self.groups for part in group.parts}

    def _scaled(self, group: ParameterGroup, learning_rate: float) -> float:
        return learning_rate * (group.learning_rate / self.peak_rate)


def build_engine(model: PreTrainedModel, family: Family, settings: TrainingSettings) -> Engine:
    """Add adapters, freeze the other parameters by the recipe, and hand the model to DeepSpeed."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if settings.adapter:
        add_adapters(model, family, settings, seed=settings.seed)
    freeze(model, family, settings)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    options = deepspeed_options(settings, parameters=parameters, cuda=torch.cuda.is_available())
    head = LossHead(model)
    if parameters < SMALL_PARAMETERS and settings.zero_stage == 3:
        as_zero3_leaf(model)
    groups = parameter_groups(model, family, settings)
    optimizer = torch.optim.AdamW(
        adamw_groups(model, groups),
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
        groups=groups,
        peak_rate=settings.learning_rate,
    )
