"""Evaluate again and again, with SIGKILL at random moments, then once to the end; print the events as JSON.

`python -m tests.helpers.evaluate_with_kills STORE RECIPE MODEL KILLS WORKERS`. Each life is WORKERS forked processes
that evaluate the same. MODEL is the manifest of a model in the store, a folder, or the URL of an endpoint.
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
from components.evaluation.generation.chat_endpoint import OpenEndpoint
from components.evaluation.generation.endpoint_model import model_behind
from components.evaluation.step import evaluate, evaluate_model
from mantis.artifacts.manifest import load_manifest
from mantis.config.recipe import parse_recipe
from mantis.generation.answerer import AnsweringModel
from mantis.generation.answering_models import FamilyModel, model_in_folder
from mantis.generation.chat_generator import ChatGenerator
from mantis.generation.generator import Generator
from mantis.runs.step_runner import Run
from mantis.store.opening import open_store

QUESTIONS_BEFORE_THE_LAST_KILL = {True: 100, False: 30}  # with controls 178 are asked, without 60

SECONDS_BEHIND_THE_QUESTIONS = 0.8  # of all lives together, at most: a batch takes about 0.05


def model_at(run: Run, address: str) -> AnsweringModel:
    if "://" in address:
        return model_behind(address, "some-model", fields={}, concurrency=4)
    if Path(address).is_dir():
        return model_in_folder(address)
    return FamilyModel(manifest=load_manifest(address), settings=run.recipe.model)


def live(run: Run, model: AnsweringModel, asked: Path) -> None:
    """One life: evaluates, and notes in `asked` each question that it begins to answer."""

    def note(questions: Any) -> None:
        with asked.open("a") as file:
            file.write("".join(f"{question.id} {question.allowed} {len(questions)}\n" for question in questions))
        time.sleep(0.03)  # a model that takes its time, or it would be done before it is killed

    family, chat, request = Generator._generate, ChatGenerator._generate, OpenEndpoint._respond

    def noted_family(self: Any, inputs: Any, rows: Any = ()) -> Any:
        note(inputs.questions)
        return family(self, inputs, rows)

    def noted_chat(self: Any, batch: Any, inputs: Any, rows: Any = ()) -> Any:
        note([each.question for each in batch])
        return chat(self, batch, inputs, rows)

    def noted_request(self: Any, question: Any) -> Any:
        note([question])
        return request(self, question)

    Generator._generate = noted_family  # type: ignore[method-assign]
    ChatGenerator._generate = noted_chat  # type: ignore[method-assign]
    OpenEndpoint._respond = noted_request  # type: ignore[method-assign]
    if isinstance(model, FamilyModel):
        evaluate(run, "demo-multi", model.manifest)
    else:
        evaluate_model(run, "demo-multi", model)


def fork(run: Run, model: AnsweringModel, asked: Path) -> int:
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
    manifest, rng, killed = model_at(run, model), random.Random(4), 0
    before_the_last = QUESTIONS_BEFORE_THE_LAST_KILL[bool(run.recipe.evaluation.controls)]
    for _ in range(int(kills)):
        children = [fork(run, manifest, asked) for _ in range(int(workers))]
        begun = lines(asked) + rng.randint(0, before_the_last // int(kills))
        while lines(asked) < begun:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                sys.exit(f"A life ended by itself before kill {killed + 1}: leave more to do behind the kills.")
            time.sleep(0.005)
        time.sleep(rng.uniform(0, SECONDS_BEHIND_THE_QUESTIONS / int(kills)))
        for child in children:
            os.kill(child, signal.SIGKILL)
        killed += sum(os.WIFSIGNALED(os.waitpid(child, 0)[1]) for child in children)
    children = [fork(run, manifest, asked) for _ in range(int(workers))]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps({"killed": killed, "codes": codes, "asked": asked.read_text().splitlines()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
