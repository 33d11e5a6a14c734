"""Evaluate again and again, with SIGKILL at random moments, then once to the end; print the events as JSON.

`python -m tests.helpers.evaluate_with_kills STORE RECIPE MODEL_MANIFEST KILLS WORKERS`. Each life is WORKERS forked
processes that evaluate the same.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from components.evaluation import evaluator  # noqa: F401  (torch, imported once for all lives)
from components.evaluation.generation.generator import Generator
from components.evaluation.step import evaluate
from mantis.artifacts.manifest import Manifest, load_manifest
from mantis.config.recipe import parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.opening import open_store

QUESTIONS_BEFORE_THE_LAST_KILL = 100  # of 178


def live(run: Run, model: Manifest, asked: Path) -> None:
    """One life: evaluates, and notes in `asked` each question that it begins to answer."""
    generate = Generator._generate

    def noted(self: Any, inputs: Any) -> Any:
        with asked.open("a") as file:
            file.write(
                "".join(f"{question.id} {question.allowed} {len(inputs.questions)}\n" for question in inputs.questions)
            )
        time.sleep(0.03)  # a model that takes its time, or it would be done before it is killed
        return generate(self, inputs)

    Generator._generate = noted  # type: ignore[method-assign]
    evaluate(run, "demo-multi", model)


def fork(run: Run, model: Manifest, asked: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        live(run, model, asked)
        code = 0
    finally:
        os._exit(code)


def lines(path: Path) -> int:
    return path.read_text().count("\n")


def main(store_url: str, recipe: str, model: str, kills: str, workers: str) -> None:
    store = open_store(store_url)
    run = Run(id="killed", store=store, recipe=parse_recipe(Path(recipe).read_text(), origin=recipe))
    asked = Path(recipe).with_suffix(".asked")
    asked.touch()
    manifest, rng, killed = load_manifest(model), random.Random(4), 0
    for _ in range(int(kills)):
        children = [fork(run, manifest, asked) for _ in range(int(workers))]
        begun = lines(asked) + rng.randint(0, QUESTIONS_BEFORE_THE_LAST_KILL // int(kills))
        while lines(asked) < begun:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        for child in children:
            os.kill(child, signal.SIGKILL)
        killed += sum(os.WIFSIGNALED(os.waitpid(child, 0)[1]) for child in children)
    children = [fork(run, manifest, asked) for _ in range(int(workers))]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps({"killed": killed, "codes": codes, "asked": asked.read_text().splitlines()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
