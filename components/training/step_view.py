"""Shows an optimizer step of a run: its micro-steps as training packs them, and its samples as training reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.training.batching.data_loader import SampleProcessor
from components.training.batching.sample_plan import SamplePlan, StepPlan
from components.training.batching.training_plan import PlanRecord, training_plan
from components.training.sizing.flops import flops_of
from components.training.step import training_task
from mantis.artifacts.manifest import Manifest
from mantis.config.recipe import Recipe
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import ConfigError
from mantis.models.family import Processor
from mantis.models.registry import family
from mantis.models.weights.mirror import resolved
from mantis.runs.step_runner import Run
from mantis.showing.sample_view import shown_images, shown_tokens, shown_turns
from mantis.showing.shown_data import PackedSample, ShownMicroStep, ShownRow, ShownStep


@dataclass(frozen=True, kw_only=True)
class StepView:
    """A step of a run with its first samples.

    Args:
        reader: the mixture.
        processor: that of the run's model.
        step: the micro-steps of all ranks.
        rows: the first samples, in the order of the micro-steps.
        started: whether training has begun, so that the number of ranks is known.
    """

    reader: MixtureReader
    processor: Processor
    step: ShownStep
    rows: tuple[ShownRow, ...]
    started: bool


def view_step(run: Run, mixture: Manifest, number: int, *, shown: int) -> StepView:
    """Show step `number`, counted from 1, of the training of `run` on `mixture`, with its first `shown` samples.

    Before training begins, the model is built to count its FLOP, which decide how samples are packed.

    Raises:
        ConfigError: the training has no such step.
        InputError: weights of the model are missing.
    """
    recipe = run.recipe.model_copy(update={"model": resolved(run.store, run.recipe.model)})
    reader = MixtureReader(run.store, mixture)
    processor = family(recipe.model.family).processor(reader.tokenizer(), recipe.model)
    known = PlanRecord.load(run.store, training_task(run, mixture).address())
    record = known or _record(recipe, processor)
    plan = training_plan(reader, recipe.training, record.cost)
    if not 1 <= number <= plan.steps:
        raise ConfigError(
            f"--step {number}: the training of {run.id} has {plan.steps:,} steps.",
            remedy=f"Choose one of 1 to {plan.steps}.",
        )
    planned = plan.step(number - 1, world_size=record.world_size)
    step = _shown_step(recipe, reader, plan, planned, number)
    packed = [sample for micro_step in step.micro_steps for sample in micro_step.samples]
    return StepView(
        reader=reader,
        processor=processor,
        step=step,
        rows=_rows(SampleProcessor(reader, processor), [sample.position for sample in packed[:shown]], reader),
        started=known is not None,
    )


def _record(recipe: Recipe, processor: Processor) -> PlanRecord:
    """The record that a training of the recipe would leave, with the ranks that the recipe asks for."""
    training, kind = recipe.training, family(recipe.model.family)
    cost = flops_of(kind.build(processor, seed=recipe.seed), kind, training).cost_model()
    ranks = training.nodes * training.gpus_per_node
    return PlanRecord(quadratic=cost.quadratic, patch=cost.patch, world_size=ranks)


def _shown_step(recipe: Recipe, reader: MixtureReader, plan: SamplePlan, planned: StepPlan, number: int) -> ShownStep:
    micro_steps = [
        ShownMicroStep(rank=rank, number=place + 1, samples=tuple(_packed(reader, int(at)) for at in positions))
        for rank, parts in enumerate(planned.ranks)
        for place, positions in enumerate(parts)
    ]
    return ShownStep(
        step=number,
        steps=plan.steps,
        samples=len(planned.samples),
        ranks=len(planned.ranks),
        token_budget=recipe.training.token_budget,
        patch_budget=recipe.training.patch_budget,
        idle=planned.idle,
        micro_steps=tuple(sorted(micro_steps, key=lambda each: (each.number, each.rank))),
    )


def _packed(reader: MixtureReader, position: int) -> PackedSample:
    return PackedSample(
        position=position,
        subset=reader.subsets[position],
        id=reader.ids[position],
        tokens=int(reader.tokens[position]),
        patches=int(reader.patches[position]),
        images=int(reader.images[position]),
    )


def _rows(samples: SampleProcessor, positions: Sequence[int], reader: MixtureReader) -> tuple[ShownRow, ...]:
    """The samples at `positions`, with the tokens that training computes of them."""
    rows = []
    for position, sample in zip(positions, samples.read(positions), strict=True):
        conversation = sample.conversation
        encoding = samples.prepare_one(position, sample).encoding
        images = shown_images(samples.processor, conversation, sample.images)
        rows.append(
            ShownRow(
                subset=reader.subsets[position],
                position=position,
                id=conversation.id,
                system=conversation.system,
                turns=shown_turns(conversation),
                images=images,
                images_left_out=len(sample.images) - len(images),
                tokens=shown_tokens(samples.processor, conversation, encoding, whole=len(encoding.input_ids)),
                weight=sample.weight,
            )
        )
    return tuple(rows)
