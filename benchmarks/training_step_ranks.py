"""Run one rank of `training.step`: `torchrun -m benchmarks.training_step_ranks FILE FULL [STYLE...]`."""

import copy
import io
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

from benchmarks.training_lengths import CLIP, CONTEXT, IDEFICS2, QWEN3, Epoch, Style, draw_epoch
from components.training.batching.collate import Prepared, collate, to_device
from components.training.batching.sample_plan import Budgets, Lengths, SamplePlan, StepPlan
from components.training.engine.deepspeed_engine import (
    DistributedContext,
    Engine,
    build_engine,
    join_ranks,
    leave_ranks,
)
from components.training.loss import share_of_step
from components.training.sizing.flops import Flops, flops_of, peak_flops
from mantis.config.model_settings import FromScratch, ImageSettings, ModelSettings
from mantis.config.training_settings import TrainingSettings
from mantis.logging import configure
from mantis.models.conversation import IMAGE_MARK
from mantis.models.family import IGNORE, Encoding, Family, Processor
from mantis.models.packed_batch import PackedBatch
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family

logger = logging.getLogger(__name__)

BATCH, VOCABULARY = 128, 2048
REPEATS = {False: 5, True: 9}
PATCH = 12
KIND = family("llava-clip")
TRAINING = TrainingSettings(
    precision="fp32", gradient_checkpointing=False, train=("vision", "projector", "text"), zero_stage=3
)


def main(out: str, full: str, *names: str) -> None:
    """Measure the named styles, or the two of the paper, and write the figures."""
    configure()
    ranks = join_ranks()
    styles = [style for style in SETUPS if style.name in names] if names else [IDEFICS2, CLIP]
    figures = {style.name: measure(style, ranks, REPEATS[bool(int(full))]) for style in styles}
    if ranks.is_main:
        Path(out).write_text(json.dumps(figures))
    leave_ranks()


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The size of the model and its samples; lengths are those of Mantis-Instruct divided by `scale`."""

    scale: int
    grid: int  # patches, and also positions, along each edge of an image; 0: images of many sizes
    model: ModelSettings
    budget: int  # tokens of a micro-step
    batch: int
    training: TrainingSettings


def eighth(grid: int) -> Setup:
    """Return the setup for CPUs: lengths, patches per image and memory at an eighth."""
    image = ImageSettings(size=grid * PATCH, patch_size=PATCH)
    shape = FromScratch(text_width=128, text_layers=3, vision_width=96, vision_layers=2, vocabulary=VOCABULARY)
    model = ModelSettings(image=image, from_scratch=shape)
    # An A100 with 40 GB holds eight times this budget of mantis-idefics2 (docs/reference/sizing.md).
    return Setup(scale=8, grid=grid, model=model, budget=5400, batch=BATCH, training=TRAINING)


def any_size() -> Setup:
    """Return the setup of `eighth` for Qwen3-VL: the area of every image is an eighth.

    The tower has half the width. So its FLOPs are a third of the text model's; of the 8B model it is a quarter.
    Heads are 128 and 48 wide. Those of the 8B model are 128 and 72 wide. Narrower heads would give the softmax a larger
    share of the time than it has in the 8B model.
    """
    image = ImageSettings(size=SIDES[1] * PATCH, patch_size=PATCH)
    shape = FromScratch(
        text_width=128,
        text_heads=1,
        text_layers=3,
        vision_width=48,
        vision_heads=1,
        vision_layers=2,
        vocabulary=VOCABULARY,
    )
    model = ModelSettings(family="qwen3-vl", prompt="qwen3-vl", image=image, from_scratch=shape)
    return Setup(scale=8, grid=0, model=model, budget=5400, batch=BATCH, training=TRAINING)


SIDES = (6, 22)  # patches along the shortest and longest edge: those of QWEN3 by the root of 8
SETUPS = {IDEFICS2: eighth(3), CLIP: eighth(8), QWEN3: any_size()}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and the 128 samples of one step; `single` and `packed` are this rank's micro-steps of both ways."""

    kind: Family
    model: Any
    tokenizer: Any
    epoch: Epoch
    samples: list[Prepared]
    flops: Flops
    plan: StepPlan
    single: list[PackedBatch]
    packed: list[PackedBatch]


def make_case(style: Style, setup: Setup, ranks: DistributedContext) -> Case:
    """Build the same case on every rank, with the rank's own micro-steps."""
    kind = family(setup.model.family)
    tokenizer = train_tokenizer(words(), vocabulary=VOCABULARY, special_tokens=kind.special_tokens())
    processor = kind.processor(tokenizer, setup.model)
    model = kind.build(processor, seed=0)
    drawn = draw_epoch(style, samples=setup.batch)
    if setup.grid:
        epoch = scaled(drawn, setup)
        samples = prepared(epoch, processor)
    else:
        epoch, samples = of_many_sizes(drawn, setup, processor)
    flops = flops_of(model, kind, setup.training)
    plan = plan_of(epoch, setup, flops).step(0, world_size=ranks.world_size)
    none = processor.preprocess([])
    order = plan.samples[ranks.rank :: ranks.world_size]
    return Case(
        kind=kind,
        model=model,
        tokenizer=tokenizer,
        epoch=epoch,
        samples=samples,
        flops=flops,
        plan=plan,
        single=[collate([samples[at]], no_pixels=none) for at in order],
        packed=[collate([samples[at] for at in part], no_pixels=none) for part in plan.ranks[ranks.rank]],
    )


def plan_of(epoch: Epoch, setup: Setup, flops: Flops) -> SamplePlan:
    """Plan one step of all samples."""
    return SamplePlan(
        Lengths(tokens=epoch.tokens, patches=epoch.patches),
        seed=0,
        batch_size=setup.batch,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=setup.budget, patches=2**20),
        cost=flops.cost_model(),
    )


def measure(style: Style, ranks: DistributedContext, repeats: int) -> dict[str, Any]:
    """Measure peer and ours in turn on the same samples, check that they are equal, and break down our time."""
    case = make_case(style, SETUPS[style], ranks)
    alone = copy.deepcopy(case.model)
    kind = case.kind
    engine = build_engine(case.model, kind, TRAINING)
    seconds: dict[str, list[float]] = {"peer": [], "ours": [], "compute": []}
    for repeat in range(repeats + 1):
        if ranks.is_main:
            logger.info("%s: %d of %d", style.name, repeat, repeats)
        found = {
            "peer": timed(lambda: train(engine, case.single, ranks, kind=kind)),
            "ours": timed(lambda: train(engine, case.packed, ranks, kind=kind)),
            "compute": timed(lambda: compute(alone, case.packed, kind=kind)),
        }
        for name, value in found.items():
            if repeat:
                seconds[name].append(value)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    epoch = case.epoch
    needed = case.flops(tokens=epoch.tokens, targets=epoch.targets, patches=epoch.patches, images=epoch.images).sum()
    peak = summed(peak_flops(ranks.device, torch.float32) or 0.0, ranks.device)
    return {
        "peer": BATCH / middle["peer"],
        "ours": BATCH / middle["ours"],
        "ratio": ratio_of_neighbours(seconds["peer"], seconds["ours"]),
        **equality(engine, case.single, case.packed, ranks, kind=kind),
        "micro_steps": {"peer": len(case.single), "ours": len(case.packed)},
        "tokens": int(epoch.tokens.sum()),
        "idle_by_plan": case.plan.idle,
        "of_compute_alone": ratio_of_neighbours(seconds["compute"], seconds["ours"]),
        "gflop_needed": float(needed / 1e9),
        "of_gemm_peak": float(needed / middle["ours"] / peak),
        "compute_of_gemm_peak": float(needed / middle["compute"] / peak),
        "decomposition": "compute: forward and backward of the same micro-steps in plain torch on both ranks at once; "
        "the rest of ours is gathers, reductions, the optimizer and waiting for the other rank",
    }


def scaled(epoch: Epoch, setup: Setup) -> Epoch:
    """Return the epoch with shorter text, and as many patches as positions per image."""
    text = np.maximum(epoch.targets * 3 // setup.scale, 4)
    images = np.minimum(epoch.images, CONTEXT // setup.scale // setup.grid**2 - 1)
    patches = images * setup.grid**2
    return Epoch(tokens=text + patches, targets=np.maximum(text // 3, 1), images=images, patches=patches)


def words() -> list[str]:
    """Return text that fills a vocabulary; its meaning is irrelevant, because tokens are drawn at random."""
    generator = np.random.default_rng(0)
    letters = generator.integers(97, 123, (4000, 6), dtype=np.uint8)
    return [" ".join([word.tobytes().decode()] * 2) for word in letters]


def prepared(epoch: Epoch, processor: Processor) -> list[Prepared]:
    """Build samples of these lengths: images first, then random text, then targets."""
    generator = np.random.default_rng(0)
    tokenizer = processor.tokenizer
    mark = tokenizer.convert_tokens_to_ids(IMAGE_MARK)
    buffer = io.BytesIO()
    edge = processor.settings.image.size
    Image.fromarray(generator.integers(0, 256, (edge, edge, 3), dtype=np.uint8)).save(buffer, "PNG")
    samples = []
    columns = (epoch.tokens.tolist(), epoch.targets.tolist(), epoch.images.tolist(), epoch.patches.tolist())
    for number, (tokens, targets, images, patches) in enumerate(zip(*columns, strict=True)):
        text = generator.integers(mark + 1, len(tokenizer), tokens - patches).tolist()
        ids = [mark] * patches + text
        labels = [IGNORE] * (tokens - targets) + ids[tokens - targets :]
        pixels = processor.preprocess([buffer.getvalue()] * images)
        samples.append(Prepared(id=str(number), encoding=Encoding(input_ids=ids, labels=labels), pixels=pixels))
    return samples


def of_many_sizes(drawn: Epoch, setup: Setup, processor: Processor) -> tuple[Epoch, list[Prepared]]:
    """Build samples with images of many sizes: images first, then random text, then targets."""
    generator = np.random.default_rng(0)
    mark = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    first_word = 1 + max(processor.tokenizer.get_added_vocab().values())
    samples, counts = [], []
    for number, (targets, images) in enumerate(zip(drawn.targets.tolist(), drawn.images.tolist(), strict=True)):
        even = 2 * generator.integers(SIDES[0] // 2, SIDES[1] // 2 + 1, (images, 2))
        sides: list[tuple[int, int]] = [(rows, columns) for rows, columns in even.tolist()]
        text = max(targets * 3 // setup.scale, 4)
        while sum(rows * columns // 4 for rows, columns in sides) + text > CONTEXT // setup.scale:
            sides.pop()
        patches = sum(rows * columns for rows, columns in sides)
        ids = [mark] * (patches // 4) + generator.integers(first_word, VOCABULARY, text).tolist()
        learned = max(text // 3, 1)
        labels = [IGNORE] * (len(ids) - learned) + ids[-learned:]
        pixels = processor.preprocess([noise(rows, columns) for rows, columns in sides])
        samples.append(Prepared(id=str(number), encoding=Encoding(input_ids=ids, labels=labels), pixels=pixels))
        counts.append((len(ids), learned, len(sides), patches))
    tokens, learned_tokens, images_shown, seen = np.array(counts).T
    return Epoch(tokens=tokens, targets=learned_tokens, images=images_shown, patches=seen), samples


@cache
def noise(rows: int, columns: int) -> bytes:
    """Return an encoded image of `rows` x `columns` patches."""
    buffer = io.BytesIO()
    values = np.random.default_rng(rows * columns).integers(0, 256, (rows * PATCH, columns * PATCH, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def train(
    engine: Engine,
    batches: Sequence[PackedBatch],
    ranks: DistributedContext,
    samples: int = BATCH,
    *,
    kind: Family = KIND,
) -> float:
    """Run one optimizer step at learning rate zero, so that every repetition does the same work; return the loss."""
    loss = accumulate(engine, batches, ranks, samples, kind=kind)
    engine.step(0.0)
    return loss


def accumulate(
    engine: Engine,
    batches: Sequence[PackedBatch],
    ranks: DistributedContext,
    samples: int = BATCH,
    *,
    kind: Family = KIND,
) -> float:
    """Accumulate the gradients of all micro-steps, and return the step's loss."""
    total = torch.zeros((), device=ranks.device)
    for index, packed in enumerate(batches):
        batch = to_device(packed, ranks.device, engine.dtype)
        losses = engine.head.sample_losses(kind, engine.deepspeed, batch)
        share = share_of_step(losses, samples_of_step=samples, world_size=ranks.world_size)
        engine.backward(share, last=index == len(batches) - 1)
        total += losses.detach().sum()
    return summed(float(total), ranks.device) / samples


def compute(model: Any, batches: Sequence[PackedBatch], *, kind: Family = KIND) -> None:
    """Run forward and backward without an engine."""
    for batch in batches:
        logits = kind.forward(model, batch)
        torch.nn.functional.cross_entropy(logits, batch.targets).backward()
    model.zero_grad(set_to_none=True)


def equality(
    engine: Engine,
    single: Sequence[PackedBatch],
    packed: Sequence[PackedBatch],
    ranks: DistributedContext,
    *,
    kind: Family = KIND,
) -> dict[str, float]:
    """Return the relative differences of loss and gradient between both ways.

    Raises:
        RuntimeError: the differences are too large for the same training.
    """
    from deepspeed.utils import safe_get_full_grad

    found = []
    for batches in (single, packed):
        loss = accumulate(engine, batches, ranks, kind=kind)
        gradients = [safe_get_full_grad(parameter) for parameter in engine.trained]
        engine.step(0.0)
        found.append((loss, torch.cat([gradient.flatten() for gradient in gradients])))
    (loss, gradient), (other_loss, other) = found
    errors = {
        "loss_error": abs(loss - other_loss) / abs(loss),
        "gradient_error": float((gradient - other).norm() / gradient.norm()),
    }
    if max(errors.values()) > 1e-5:
        raise RuntimeError(f"peer and ours train different models: {errors}")
    return errors


def ratio_of_neighbours(above: Sequence[float], below: Sequence[float]) -> float:
    """The median ratio of measurements that were made one after the other, so that a slow minute hits both."""
    return statistics.median(high / low for high, low in zip(above, below, strict=True))


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds until every rank has finished."""
    dist.barrier()
    start = time.perf_counter()
    work()
    dist.barrier()
    return time.perf_counter() - start


def summed(value: float, device: torch.device) -> float:
    """Return the sum over all ranks."""
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


if __name__ == "__main__":
    main(*sys.argv[1:])
