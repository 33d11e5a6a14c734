"""Trains in this process with plain PyTorch: for notebooks, and to look at a step from inside.

Samples, packing, loss, rates and optimizer are those of a training. `mantis run` trains through DeepSpeed on all
ranks, and stores the result. This stores nothing.
"""

import html
from dataclasses import dataclass

import torch
from torch import Tensor

from components.training.batching.collate import Prepared, to_device
from components.training.batching.data_loader import SampleProcessor
from components.training.batching.training_plan import training_plan
from components.training.engine.parameter_groups import adamw_groups, freeze, parameter_groups
from components.training.loss import LossHead, share_of_step
from components.training.lr_schedule import learning_rate
from components.training.sizing.flops import flops_of
from mantis.artifacts.manifest import Manifest
from mantis.dataset.mixture_reader import MixtureReader, TrainingSample
from mantis.errors import ConfigError, TrainingError
from mantis.models.family import Family
from mantis.models.packed_batch import PackedBatch
from mantis.models.registry import family
from mantis.models.weights.mirror import resolved
from mantis.runs.step_runner import Run
from mantis.showing.sample_view import shown_images, shown_tokens
from mantis.showing.shown_data import ShownImage, ShownTokens
from mantis.showing.visible_text import visible

LEARNED, READ, IMAGE = "#b7e4c7", "#eeeeee", "#bcd4f6"  # colours of tokens


@dataclass(frozen=True, kw_only=True)
class PackedMicroStep:
    """Samples in one row without padding, as a model's forward takes them. A notebook shows tokens and images.

    Args:
        batch: the tensors.
        ids: the id of each sample.
        tokens: the tokens of each sample, with their loss mask.
        images: the images of each sample, as thumbnails.
    """

    batch: PackedBatch
    ids: tuple[str, ...]
    tokens: tuple[ShownTokens, ...]
    images: tuple[tuple[ShownImage, ...], ...]

    @property
    def loss_mask(self) -> Tensor:
        """Whether the loss counts each token of the row, [T] bool."""
        mask = torch.zeros(self.batch.input_ids.shape[1], dtype=torch.bool)
        mask[self.batch.target_positions.cpu() + 1] = True
        return mask

    def _repr_html_(self) -> str:
        """The samples for a notebook: green tokens are learned, grey ones are read, blue ones stand for images."""
        parts = []
        for name, tokens, images in zip(self.ids, self.tokens, self.images, strict=True):
            pictures = "".join(f'<img src="{image.thumbnail}" style="margin:2px" alt="">' for image in images)
            text = "".join(_coloured(piece.text, piece.learned, piece.image is not None) for piece in tokens.pieces)
            parts.append(
                f"<div><b>{html.escape(visible(name))}</b> {tokens.count} tokens<br>{pictures}<br>{text}</div>"
            )
        return "<hr>".join(parts)


@dataclass(frozen=True, kw_only=True)
class PackedStep:
    """The samples of one optimizer step, packed. `number` counts from 1."""

    number: int
    micro_steps: tuple[PackedMicroStep, ...]

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(len(each.ids) for each in self.micro_steps)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The figures of a step: the loss before it, the gradient's norm before clipping, and the learning rate."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float


class OneProcessTraining:
    """The model of a run, built as at the start of its training, on the first GPU or the CPU."""

    def __init__(self, run: Run, mixture: Manifest) -> None:
        """Build the model and plan its steps for one rank.

        Raises:
            ConfigError: the recipe trains in bf16 or with adapters, which needs DeepSpeed's engine.
            InputError: weights of the model are missing.
        """
        recipe = run.recipe.model_copy(update={"model": resolved(run.store, run.recipe.model)})
        training = recipe.training
        if training.precision != "fp32" or training.adapter:
            raise ConfigError(
                f"training.precision = {training.precision}, with{'' if training.adapter else 'out'} adapters.",
                remedy="Set training.precision=fp32 and training.adapter=null. `mantis run` trains every recipe.",
            )
        self.recipe = recipe
        self.reader = MixtureReader(run.store, mixture)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._family: Family = family(recipe.model.family)
        self._samples = SampleProcessor(self.reader, self._family.processor(self.reader.tokenizer(), recipe.model))
        self.model = self._family.build(self._samples.processor, seed=recipe.seed)
        self._plan = training_plan(self.reader, training, flops_of(self.model, self._family, training).cost_model())
        freeze(self.model, self._family, training)
        self._head = LossHead(self.model)
        self._groups = parameter_groups(self.model, self._family, training)
        self.model.to(self.device).train()
        self._optimizer = torch.optim.AdamW(
            adamw_groups(self.model, self._groups),
            lr=training.learning_rate,
            betas=training.betas,
            eps=training.eps,
            fused=True,
        )
        self._taken = 0

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        return self._plan.steps

    def packed_step(self, number: int) -> PackedStep:
        """Read and pack the samples of step `number`, from 1.

        Raises:
            ConfigError: the training has no such step.
        """
        return PackedStep(number=number, micro_steps=tuple(map(self._packed, self._positions(number))))

    def take_step(self) -> StepResult:
        """Train on the next step's samples. Each sample's loss has the same weight in it.

        Raises:
            ConfigError: all steps were taken.
            TrainingError: the loss is not finite.
        """
        number, training = self._taken + 1, self.recipe.training
        parts = self._positions(number)
        samples = sum(map(len, parts))
        torch.manual_seed(((training.seed << 40) + (self._taken << 12)) % 2**63)  # as in TrainStep
        loss = sum(self._backward(self._samples.pack(self._read(part)[1]), samples=samples) for part in parts)
        rate = learning_rate(self._taken, steps=self.steps, peak=training.learning_rate, schedule=training.schedule)
        trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, training.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingError(f"The gradient of step {number} is not finite.", remedy="Lower the learning rate.")
        for own, group in zip(self._groups, self._optimizer.param_groups, strict=True):
            group["lr"] = rate * (own.learning_rate / training.learning_rate)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._taken = number
        return StepResult(step=number, loss=loss, gradient_norm=float(norm), learning_rate=rate)

    def _positions(self, number: int) -> list[list[int]]:
        """The samples of a step by micro-step, as positions in the mixture."""
        if not 1 <= number <= self.steps:
            raise ConfigError(f"The training has no step {number}.", remedy=f"Choose one of 1 to {self.steps:,}.")
        [parts] = self._plan.step(number - 1, world_size=1).ranks
        return [[int(at) for at in part] for part in parts]

    def _backward(self, packed: PackedBatch, *, samples: int) -> float:
        batch = to_device(packed, self.device, torch.float32)
        losses = self._head.sample_losses(self._family, self.model, batch)
        share = share_of_step(losses, samples_of_step=samples, world_size=1)
        share.backward()  # type: ignore[no-untyped-call]
        return float(share.detach())

    def _read(self, positions: list[int]) -> tuple[list[TrainingSample], list[Prepared]]:
        read = self._samples.read(positions)
        return read, [self._samples.prepare_one(at, sample) for at, sample in zip(positions, read, strict=True)]

    def _packed(self, positions: list[int]) -> PackedMicroStep:
        read, prepared = self._read(positions)
        processor = self._samples.processor
        return PackedMicroStep(
            batch=self._samples.pack(prepared),
            ids=tuple(sample.conversation.id for sample in read),
            tokens=tuple(
                shown_tokens(processor, sample.conversation, each.encoding, whole=len(each.encoding.input_ids))
                for sample, each in zip(read, prepared, strict=True)
            ),
            images=tuple(shown_images(processor, sample.conversation, sample.images) for sample in read),
        )


def _coloured(text: str, learned: bool, image: bool) -> str:
    colour = IMAGE if image else LEARNED if learned else READ
    shown = html.escape(visible(text)).replace("\n", "↵")
    return f'<span style="background:{colour};color:#000;white-space:pre-wrap;margin:1px">{shown}</span>'
