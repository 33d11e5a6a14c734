"""Start a training of a tiny model on two ranks, up to the end of its first step."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

GOAL = "<=8"
RANKS = 2
REPEATS = {False: 1, True: 5}
SUBSET = "demo-multi"
RECIPE = """
name: start
model:
  prompt: compact
  from_scratch: {{vision_width: 32, vision_layers: 1, vision_heads: 2, text_width: 32, text_layers: 1, text_heads: 2}}
data: {{source: "{source}", context_length: 512}}
training:
  max_steps: 1
  global_batch_size: 4
  precision: fp32
  gradient_checkpointing: false
  gpus_per_node: {ranks}
"""


def start(full: bool) -> Row:
    """Measure seconds from the launch to the end of the first step; the least of the repeats, torchrun as peer."""
    from components.training.launch.launcher import by_fork, shared_imports
    from components.training.step import training_task
    from mantis.store.base import delete_tree

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, mixture = _prepare(folder)
        arguments = [run.store.url, run.id, str(folder / "marks.json")]
        module = "benchmarks.training_start_ranks"
        imports = ["benchmarks.training_start_clock", *shared_imports(run.recipe)]
        commands = {
            "peer": [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"],
            "ours": by_fork(RANKS, module, arguments, imports=imports),
        }
        commands["peer"] += ["-m", module, *arguments]
        found: dict[str, list[dict[str, Any]]] = {who: [] for who in commands}
        for _ in range(REPEATS[full]):
            for who, command in commands.items():
                delete_tree(run.store, training_task(run, mixture).address())  # else the ranks would resume
                found[who].append(_timed(command, folder / "marks.json"))
    best = {who: min(several, key=lambda figures: figures["seconds"]) for who, several in found.items()}
    return Row(
        name="training.start",
        peer=best["peer"]["seconds"],
        ours=best["ours"]["seconds"],
        ratio=best["ours"]["seconds"],
        unit="s",
        goal=GOAL,
        details={"peer": "the same ranks under torchrun", "ranks": RANKS, **best},
    )


def _prepare(folder: Path) -> tuple[Any, Any]:
    """A run in a local store, and its mixture."""
    from components.data.step import assemble, prepare
    from mantis.config.recipe import parse_recipe
    from mantis.runs.step_runner import Run
    from mantis.store.local import LocalStore
    from mantis.synthetic.dataset import write_demo_subset

    write_demo_subset(folder / "raw", SUBSET, seed=0, conversations=24, workers=1)
    recipe = parse_recipe(RECIPE.format(source=folder / "raw", ranks=RANKS), origin="training.start")
    run = Run(id="start", store=LocalStore(folder / "store"), recipe=recipe)
    run.store.put(run.key("recipe.yaml"), recipe.to_yaml().encode())
    return run, assemble(run, [prepare(run, SUBSET)])


def _timed(command: Sequence[str], marks: Path) -> dict[str, Any]:
    """Run the ranks; returns the first rank's seconds by phase, and the processor seconds of all processes."""
    launched, before = time.time(), os.times()
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = os.times()
    phases: dict[str, float] = {}
    since = launched
    for phase, at in json.loads(marks.read_text()):
        phases[phase] = at - since
        since = at
    cores = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": since - launched, "phases": phases, "processor_seconds": cores}
