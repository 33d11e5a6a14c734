"""Score other people's published outputs, and compare each response with the published judgement of it.

    python -m benchmarks.published_outputs FOLDER [--json]

FOLDER holds clones of the repositories that publish outputs, as `<owner>+<name>` with their files. A repository that is
not there is left out:

| folder | outputs |
|---|---|
| `jdf-prog+BLINK_Benchmark` | Mantis' authors, `eval/outputs` |
| `lupantech+ScienceQA` | GPT-3, `results/gpt3` |
| `haotian-liu+LLaVA` | two models on ScienceQA, `llava/eval/table/results`, and the right answers |
| `MMMU-Benchmark+MMMU` | two models, `mmmu/example_outputs` |
| `lupantech+MathVista` | `results` |

The right answers of ScienceQA lie in LLaVA's commit 32cebc3, in `playground/data/eval/scienceqa/llava_test_CQM-A.json`.

The published judgement of a response is that of its authors, often with a GPT model as reader.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.scoring.metrics import blink, mathvista, mmmu, scienceqa
from components.evaluation.scoring.score_response import score_response
from components.evaluation.scoring.targets import LETTERS, Target

# Folder of outputs -> the model's name in the Mantis paper.
BLINK_MODELS = {
    "mantis-8b-idefics2_8192": "Mantis-Idefics2", "llava_clip_llama3_8b_finetune_8192": "Mantis-CLIP",
    "llava_siglip_llama3_8b_finetune_8192": "Mantis-SigLIP", "mantis-9b-openflamingo": "Mantis-Flamingo",
    "idefics2": "Idefics2", "idefics1": "Idefics1", "blip2": "BLIP-2", "fuyu": "Fuyu", "kosmos2": "Kosmos2",
    "llavanext": "LLaVA-1.6", "otterimage": "Otter-Image", "qwenVL": "Qwen-VL-Chat", "videollava": "VideoLLaVA",
    "vila": "VILA-8B",
}  # fmt: skip
MMMU_MODELS = {"llava1.5_13b": "LLaVA-1.5-13B", "qwen_vl": "Qwen-VL-7B-Chat"}
SCIENCEQA_QUESTIONS = "haotian-liu+LLaVA/playground/data/eval/scienceqa/llava_test_CQM-A.json"
OPTION = re.compile(r"[A-E]\. ")

Raw = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One model's outputs. Accuracies are in percent; ours are None where the right answers are not at hand.

    `with_guess` is the variant of a metric whose official code draws an option where it reads none. `with_draws` takes
    the options that the authors drew, where their file holds them.

    `decided` counts responses that the official code judges alone, and `decided_differ` those of them that we judge
    differently. `read` and `read_differ` count the other ones: a GPT model read them, or an option was drawn.
    """

    benchmark: str
    model: str
    published: float
    ours: float | None
    with_guess: float | None = None
    with_draws: float | None = None
    decided: int
    decided_differ: int
    read: int
    read_differ: int

    @property
    def largest_gap(self) -> float:
        """The largest possible difference to the published accuracy, in points."""
        if self.ours is not None:
            return abs(self.ours - self.published)
        return 100 * (self.decided_differ + self.read_differ) / (self.decided + self.read)


def compare_all(folder: Path) -> list[Compared]:
    """Compare the outputs of every repository in `folder`."""
    sources: tuple[tuple[str, Callable[[Path], Iterator[Compared]]], ...] = (
        ("jdf-prog+BLINK_Benchmark/eval/outputs", _blink),
        ("haotian-liu+LLaVA/llava/eval/table/results", _scienceqa),
        ("lupantech+ScienceQA/results/gpt3", _scienceqa),
        ("MMMU-Benchmark+MMMU/mmmu/example_outputs", _mmmu),
        ("lupantech+MathVista/results", _mathvista),
    )
    return [row for name, compare in sources if (folder / name).is_dir() for row in compare(folder / name)]


def _blink(folder: Path) -> Iterator[Compared]:
    """The files hold no texts of options. Each task has a fixed number of options: its last right letter."""
    right: dict[str, str] = _read(folder.parent / "val_answers.json")
    letters: dict[str, str] = {}
    for sample, answer in right.items():
        letters[_task(sample)] = max(letters.get(_task(sample), "A"), answer[1])
    published = {row.model: row.accuracy for row in load_benchmark("blink").paper}
    for name, model in BLINK_MODELS.items():
        marks: dict[str, list[float]] = {}
        counts = _Counts()
        for file in sorted((folder / name).glob("*.json")):
            for row in _read(file)["val"]:
                known = LETTERS[: LETTERS.index(letters[_task(row["idx"])]) + 1]
                options = tuple(f"option {letter}" for letter in known)
                target = Target(kind="multiple-choice", options=options, answers=(row["answer"][1],))
                response = row["full_prediction"] or ""
                mark = score_response(response, target, "blink").official
                marks.setdefault(_task(row["idx"]), []).append(mark)
                alone = blink.decided(response.strip(), known) is not None
                counts.add(alone=alone, differ=bool(mark) != (row["prediction"] == row["answer"]))
        ours = 100 * fmean(map(fmean, marks.values()))
        yield counts.row("BLINK", model, published[model], ours)


def _task(sample: str) -> str:
    return "_".join(sample.split("_")[1:-1])


def _scienceqa(folder: Path) -> Iterator[Compared]:
    """The files hold the option that was read from each response. LLaVA's file of questions holds the right options."""
    places = (parent / SCIENCEQA_QUESTIONS for parent in folder.parents)
    questions = next((place for place in places if place.is_file()), None)
    right: dict[str, Target] = {} if questions is None else _scienceqa_targets(_read(questions))
    for file in sorted(folder.glob("*.json")):
        stored = _read(file)
        counts, marks, drawn = _Counts(), list[tuple[float, float]](), list[float]()
        for sample, response in stored["outputs"].items():
            answer = right.get(sample)
            target = Target(
                kind="multiple-choice",
                options=answer.options if answer else tuple(LETTERS[:5]),
                answers=tuple(LETTERS[stored["results"][sample]]),
            )
            read = scienceqa.official(response, target)
            known = read.parsed is not None and read.parsed in target.letters
            wrong = stored["results"][sample] < 0  # LLaVA read nothing
            counts.add(alone=known, differ=known if wrong else read.score == 0)
            if answer:
                judged = score_response(response, answer, "scienceqa")
                marks.append((judged.official, judged.variants["random guess"]))
                drawn.append(judged.official if known or wrong else float(target.answers == answer.answers))
        row = counts.row("ScienceQA", file.stem, stored["acc"], *_percent(marks))
        yield replace(row, with_draws=100 * fmean(drawn) if drawn else None)


def _scienceqa_targets(rows: list[Raw]) -> dict[str, Target]:
    """Each question ends with its options, one a line. The other turn is the letter of the right one."""
    targets = {}
    for row in rows:
        question, answer = (turn["value"] for turn in row["conversations"])
        lines, options = question.split("\n"), list[str]()
        for line in reversed(lines):
            options.insert(0, line)
            if line.startswith("A. "):
                break
        number = len([line for line in options if OPTION.match(line)])
        targets[row["id"]] = Target(kind="multiple-choice", options=tuple(LETTERS[:number]), answers=(answer,))
    return targets


def _mmmu(folder: Path) -> Iterator[Compared]:
    """`total_val_output.json` holds what the official parser read, or drew where it read nothing."""
    answers: dict[str, Raw] = _read(folder.parent / "answer_dict_val.json")
    for name, model in MMMU_MODELS.items():
        counts, marks, published = _Counts(), list[tuple[float, float]](), []
        outputs = _read(folder / name / "total_val_output.json")
        for file in sorted((folder / name).glob("*/output.json")):
            for row in _read(file):
                right = answers[row["id"]]["ground_truth"]
                choice = row["question_type"] == "multiple-choice"
                target = Target(
                    kind="multiple-choice" if choice else "short",
                    options=tuple(row["index2ans"].values()) if choice else (),
                    answers=tuple(right) if isinstance(right, list) else (right,),
                )
                judged = score_response(row["response"], target, "mmmu")
                drawn = choice and judged.parsed_official is None
                said = outputs[row["id"]]
                official = float(said == right) if choice else _open(said, target)
                marks.append((judged.official, judged.variants["random guess"]))
                published.append(official)
                counts.add(alone=not drawn, differ=judged.official != official)
        yield counts.row("MMMU", model, 100 * fmean(published), *_percent(marks))


def _open(said: str | list[mmmu.Value], target: Target) -> float:
    """The official judgement of an open answer, from its text or its parsed values."""
    right = [value for answer in target.answers for value in mmmu.normalize(answer)]
    values = mmmu.parse_open(said) if isinstance(said, str) else said
    return float(any(mmmu.matches(value, right) for value in values))


def _percent(marks: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    """The mean of both scores in percent; None without scores."""
    if not marks:
        return None, None
    official, guess = zip(*marks, strict=True)
    return 100 * fmean(official), 100 * fmean(guess)


def _mathvista(folder: Path) -> Iterator[Compared]:
    for file in sorted(folder.glob("*/output_*.json")):
        rows: list[Raw] = list(_read(file).values())
        if "guess" in file.stem or "template" in file.stem or not any("true_false" in row for row in rows):
            continue
        counts, ours, published = _Counts(), [], []
        for row in rows:
            target, response = _math_target(row), row.get("response") or ""
            mark = score_response(response, target, "mathvista").official
            official = float(bool(row.get("true_false")))
            ours.append(mark)
            published.append(official)
            # The authors did not use the option that keeps a quoted answer.
            alone = mathvista.QUOTE[0] not in response and mathvista.decided(response, target) is not None
            counts.add(alone=alone, differ=mark != official)
        yield counts.row("MathVista", file.stem.removeprefix("output_"), 100 * fmean(published), 100 * fmean(ours))


def _math_target(row: Raw) -> Target:
    if row["question_type"] == "multi_choice":
        options = tuple(row["choices"])
        same = tuple(letter for letter, text in zip(LETTERS, options, strict=False) if text == row["answer"])
        return Target(kind="multiple-choice", options=options, answers=same)
    details = {"answer_type": row["answer_type"], "precision": row["precision"]}
    return Target(kind="number", answers=(row["answer"],), details=details)


@dataclass(kw_only=True)
class _Counts:
    decided: int = 0
    decided_differ: int = 0
    read: int = 0
    read_differ: int = 0

    def add(self, *, alone: bool, differ: bool) -> None:
        self.decided += alone
        self.read += not alone
        self.decided_differ += alone and differ
        self.read_differ += not alone and differ

    def row(
        self, benchmark: str, model: str, published: float, ours: float | None, with_guess: float | None = None
    ) -> Compared:
        return Compared(
            benchmark=benchmark, model=model, published=published, ours=ours, with_guess=with_guess, **asdict(self)
        )


def _read(file: Path) -> Any:
    return json.loads(file.read_text())


def main(arguments: list[str] | None = None) -> int:
    """Print a table of all outputs; the exit code is 1 if the folder holds none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published_outputs", description="Score other outputs.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with clones of the repositories")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a Markdown table")
    options = parser.parse_args(arguments)
    rows = compare_all(options.folder)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0 if rows else 1
    print("| benchmark | outputs | published | ours | with guess | decided alone | differ | read or drawn | differ |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        ours = " | ".join("-" if value is None else f"{value:.2f}" for value in (row.ours, row.with_guess))
        counts = f"{row.decided:,} | {row.decided_differ} | {row.read:,} | {row.read_differ}"
        print(f"| {row.benchmark} | {row.model} | {row.published:.2f} | {ours} | {counts} |")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
