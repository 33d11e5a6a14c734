"""Measure how long a real training on two ranks waits for data that lies in a local MinIO."""

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.minio import serving
from benchmarks.real import repeat
from benchmarks.rows import Row

logger = logging.getLogger(__name__)

GOAL = "<=0.03"
CONVERSATIONS = {False: 192, True: 768}
THREADS = (1, 2, 4)
NEEDED = 50 / 16  # samples per second and rank, if 16 GPUs train an epoch in four hours
# Images have the 336 pixels of CLIP-L in patches of 28, which gives a quarter of its positions. The step is cheap on
# purpose, so that it does not hide the time of the data loader.
RECIPE = """
name: benchmark
model:
  image: {{size: 336, patch_size: 28}}
  from_scratch: {{text_width: 64, text_layers: 2, vision_width: 64, vocabulary: 4000}}
data: {{source: "{source}", context_length: 8192}}
training:
  global_batch_size: 32
  precision: fp32
  gradient_checkpointing: false
  zero_stage: 3
  token_budget: 4096
  checkpoint_every: 1000
  log_every: 1
"""


def feed(full: bool) -> Row:
    """Measure the share of step time that rank 0 waited for data, without the first step, which fills the buffer."""
    with tempfile.TemporaryDirectory() as name, serving(Path(name) / "minio") as url:
        run, mixture = _prepare(Path(name) / "raw", url, CONVERSATIONS[full])
        alone = {threads: _alone(run, mixture, threads) for threads in THREADS}
        rows = _train(run, mixture)
    waited, seconds = (sum(row[column] for row in rows[1:]) for column in ("data_seconds", "seconds"))
    return Row(
        name="training.feed",
        peer=None,
        ours=waited / seconds,
        ratio=waited / seconds,
        unit="of step time",
        goal=GOAL,
        details={
            "steps": len(rows) - 1,
            "samples_per_second": sum(row["samples"] for row in rows[1:]) / seconds,
            "first_wait_seconds": rows[0]["data_seconds"],
            "feed_alone_samples_per_second_by_threads": alone,
            "needed_per_rank_on_16_gpus": NEEDED,
            "limited_by": "cores: ranks, server and data loader share them here",
        },
    )


def _prepare(raw: Path, url: str, count: int) -> tuple[Any, Any]:
    """Create a run, and its mixture of real conversations in the store."""
    from components.data.step import assemble, prepare
    from mantis.config.recipe import parse_recipe
    from mantis.runs.step_runner import Run
    from mantis.store.opening import open_store

    repeat(raw / "real", count)
    run = Run(id="benchmark", store=open_store(url), recipe=parse_recipe(RECIPE.format(source=raw), origin="benchmark"))
    run.store.put(run.key("recipe.yaml"), run.recipe.to_yaml().encode())
    return run, assemble(run, [prepare(run, "real")])


def _alone(run: Any, mixture: Any, threads: int) -> float:
    """Measure the samples per second of one rank's data loader, while nothing else runs."""
    from components.training.batching.data_loader import DataLoader, SampleProcessor
    from components.training.batching.sample_plan import Budgets, CostModel, Lengths, SamplePlan
    from mantis.dataset.mixture_reader import MixtureReader
    from mantis.models.registry import family

    logger.info("The feed alone, %d threads", threads)
    reader = MixtureReader(run.store, mixture)
    plan = SamplePlan(
        Lengths(tokens=reader.tokens.astype("int64"), patches=reader.patches.astype("int64")),
        seed=0,
        batch_size=8,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=8192, patches=65_536),
        cost=CostModel(quadratic=0.0, patch=0.0),
    )
    preparer = SampleProcessor(reader, family(run.recipe.model.family).processor(reader.tokenizer(), run.recipe.model))
    preparer.prepare([0])  # warm-up: opens tables and connections
    start = time.perf_counter()
    with DataLoader(preparer, plan, start=0, rank=0, world_size=1, threads=threads) as works:
        samples = sum(len(work.samples) for work in works)
    return samples / (time.perf_counter() - start)


def _train(run: Any, mixture: Any) -> list[dict[str, float]]:
    from components.training.step import train

    manifest = train(run, mixture)
    return [json.loads(line) for line in run.store.get(f"{manifest.key}/metrics.jsonl").splitlines()]
