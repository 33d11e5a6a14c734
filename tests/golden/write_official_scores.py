"""Score the responses of `official_responses` with the code of the benchmarks' authors: official_scores.json.

    python -m tests.golden.write_official_scores FOLDER

FOLDER keeps clones of the official repositories. Missing ones are cloned from GitHub. MathVista needs the package
Levenshtein. Only the functions that score are read from these files and run. None of their code is kept.

A score is null where the official code does not decide by itself: it asks a GPT model, or draws an option at random.
"""

import ast
import json
import os
import random
import re
import statistics
import string
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.scoring.targets import LETTERS, Target
from tests.golden.official_code import OfficialRepositories
from tests.golden.official_responses import CASES, KEYWORDS

FILE = Path(__file__).with_name("official_scores.json")
Score = float | None
Names = dict[str, Any]


class Undecided(Exception):  # noqa: N818
    """The official code asks a model or draws at random."""


def undecided(*_: Any, **__: Any) -> Any:
    """Stand in for a question to a model, and for a random draw."""
    raise Undecided


def main(folder: Path) -> None:
    """Write the scores of every metric."""
    made: dict[str, list[Score]] = {}
    with tempfile.TemporaryDirectory(prefix="mantis-official-") as work:
        repositories = OfficialRepositories(folder.absolute(), Path(work))
        repositories.clone()
        for metric in CASES:
            made[metric] = scores(metric, repositories)
            decided = sum(each is not None for each in made[metric])
            print(f"{metric}: {len(made[metric])} responses, {decided} decided")
    lines = ",\n".join(f'"{metric}": {json.dumps(scores)}' for metric, scores in made.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")


def scores(metric: str, repositories: OfficialRepositories) -> list[Score]:
    """The official scores of the metric's cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = SCORERS[metric](repositories)
        return [_score(score, response, target) for response, target in CASES[metric]]


def _score(score: Callable[[str, Target], Score], response: str, target: Target) -> Score:
    try:
        found = score(response, target)
    except Undecided:
        return None
    return None if found is None else round(float(found), 6)


def load(path: Path, names: Iterable[str], **given: Any) -> Names:
    """Run the named functions, classes and assignments of a Python file, with `given` in place of its imports."""
    wanted = set(names)
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if wanted & _defined(node)]
    missing = wanted - {name for node in tree.body for name in _defined(node)}
    if missing:
        raise SystemExit(f"{path} does not define {', '.join(sorted(missing))}")
    space: Names = {"re": re, "np": np, "random": random, "os": os, "string": string, **given}
    exec(compile(tree, str(path), "exec"), space)
    return space


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def passage(source: str, first: str, last: str) -> Any:
    """Compile the statements from the one that begins with `first` to the one that begins with `last`."""
    for node in ast.walk(ast.parse(source)):
        for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if not isinstance(block, list):
                continue
            texts = [ast.unparse(each) for each in block]
            begin = next((place for place, text in enumerate(texts) if text.startswith(first)), None)
            end = next((place for place, text in enumerate(texts) if text.startswith(last)), None)
            if begin is not None and end is not None:
                return compile(ast.Module(body=block[begin : end + 1], type_ignores=[]), first, "exec")
    raise SystemExit(f"no statements from {first!r} to {last!r}")


def _choices(target: Target) -> dict[str, str]:
    return dict(zip(target.letters, target.options, strict=True))


def _mantis(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    path = repositories.file("TIGER-AI-Lab/Mantis", "mantis/benchmark/eval.py")
    code = load(path, ("parse_answer", "get_option", "get_prediction"), List=list)

    def score(response: str, target: Target) -> Score:
        kind = "short-answer" if target.kind == "short" else "multi-choice"
        dataset = "nlvr2" if target.kind == "true-false" else ""
        read = code["get_prediction"](kind, response, target.answers[0], list(target.options), dataset)
        return float(read["correct"])

    return score


def _mvbench(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    source = repositories.file("TIGER-AI-Lab/Mantis", "mantis/benchmark/eval_on_mvbench.py").read_text()
    code = passage(source, "if 'the answer is' in response", "di['correct']")

    def score(response: str, target: Target) -> Score:
        space: Names = {"response": response, "data": {"answer": target.answers[0]}, "di": {}}
        exec(code, space)
        return float(space["di"]["correct"])

    return score


def _blink(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    path = repositories.file("zeyofu/BLINK_Benchmark", "eval/test_benchmark.py")
    code = load(path, ("analyze_answer",), match_multiple_choice=lambda *_: "asked")

    def score(response: str, target: Target) -> Score:
        row = {"question": "?", "choices": list(target.options)}
        read = code["analyze_answer"](row, response, [f"({letter})" for letter in target.letters])
        return None if read == "asked" else float(read == f"({target.answers[0]})")

    return score


def _blink_lmms(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    path = repositories.file("EvolvingLMMs-Lab/lmms-eval", "lmms_eval/tasks/blink/utils.py")
    code = load(path, ("_extract_answer_letter",))
    return lambda response, target: float(code["_extract_answer_letter"](response) == target.answers[0])


def _mmmu(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    draws = type("Draws", (), {"choice": staticmethod(undecided), "seed": staticmethod(lambda _: None)})
    numbers = ("check_is_number", "normalize_str", "extract_numbers")
    names = ("parse_multi_choice_response", "parse_open_response", "eval_multi_choice", "eval_open", *numbers)
    code = load(repositories.file("MMMU-Benchmark/MMMU", "mmmu/utils/eval_utils.py"), names, random=draws)
    muir = load(repositories.file("muirbench/MuirBench", "eval/utils/postprocess.py"), names[:1], random=draws)

    def score(response: str, target: Target) -> Score:
        if target.kind == "short":
            return float(code["eval_open"](list(target.answers), code["parse_open_response"](response)))
        asked = (response, list(target.letters), _choices(target))
        read, same = code[names[0]](*asked), muir[names[0]](*asked)
        if read != same:
            raise SystemExit(f"MMMU and MuirBench read {response!r} differently")
        return float(code["eval_multi_choice"](target.answers[0], read))

    return score


def _mmbench(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    import copy

    names = ("_VERBOSE_ANSWER_RE", "can_infer_option", "can_infer_text", "can_infer")
    code = load(repositories.file("open-compass/VLMEvalKit", "vlmeval/utils/matching_util.py"), names, cp=copy)
    return lambda response, target: float(code["can_infer"](response, _choices(target)) == target.answers[0])


def _scienceqa(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    source = repositories.file("haotian-liu/LLaVA", "llava/eval/eval_science_qa.py").read_text()
    llava = passage(source, "if pred_text in args.options", "if pred_text in args.options")
    source = repositories.file("lupantech/ScienceQA", "models/run_gpt3.py").read_text()
    gpt3 = passage(source, "pattern = re.compile", "if len(res) == 1")
    names = ("sqa_doc_to_target", "sqa_process_results")
    lmms = load(repositories.file("EvolvingLMMs-Lab/lmms-eval", "lmms_eval/tasks/scienceqa/utils.py"), names)

    def score(response: str, target: Target) -> Score:
        options = type("Options", (), {"options": list(LETTERS[:5])})
        space: Names = {"re": re, "args": options, "pred_text": response.strip(), "output": response.strip()}
        exec(llava, space)
        read = space["answer"]
        exec(gpt3, space)
        if space["answer"] not in ("FAILED", read):
            raise SystemExit(f"LLaVA and run_gpt3.py read {response!r} differently")
        if read != "FAILED":
            return float(read == target.answers[0])
        row = {"choices": list(target.options), "answer": target.letters.index(target.answers[0])}
        return float(lmms["sqa_process_results"](row, [response])["exact_match"])

    return score


def _python3(path: Path) -> str:
    """The text of a file in Python 2 as Python 3."""
    tool = import_module("lib2to3.refactor").RefactoringTool(["lib2to3.fixes.fix_print"])
    return str(tool.refactor_string(path.read_text() + "\n", str(path)))


def _vqa_literal(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    space: Names = {}
    exec(_python3(repositories.file("GT-Vision-Lab/VQA", "PythonEvaluationTools/vqaEvaluation/vqaEval.py")), space)

    def score(response: str, target: Target) -> Score:
        answers = [{"answer": answer, "answer_id": place} for place, answer in enumerate(target.answers)]
        asked = {1: {"answers": answers, "question_type": "", "answer_type": ""}}
        holder = type("Questions", (), {"qa": asked, "getQuesIds": staticmethod(lambda: [1])})
        evaluation = space["VQAEval"](holder, type("Results", (), {"qa": {1: {"answer": response}}}), n=6)
        evaluation.updateProgress = lambda _: None
        space["print"] = lambda *_: None
        evaluation.evaluate()
        return float(evaluation.accuracy["overall"]) / 100

    return score


def _processor(repositories: OfficialRepositories) -> Any:
    path = repositories.file("EvolvingLMMs-Lab/lmms-eval", "lmms_eval/tasks/_task_utils/vqa_eval_metric.py")
    return load(path, ("EvalAIAnswerProcessor",))["EvalAIAnswerProcessor"]


def _vqa(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    path = repositories.file("EvolvingLMMs-Lab/lmms-eval", "lmms_eval/tasks/vqav2/utils.py")
    given = {"EvalAIAnswerProcessor": _processor(repositories), "statistics": statistics}
    code = load(path, ("vqav2_process_results",), **given)

    def score(response: str, target: Target) -> Score:
        answers = [{"answer": answer, "answer_id": place} for place, answer in enumerate(target.answers)]
        return float(code["vqav2_process_results"]({"answers": answers, "question_id": 1}, [response])["exact_match"])

    return score


def _vqa_evalai(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    path = repositories.file("EvolvingLMMs-Lab/lmms-eval", "lmms_eval/tasks/textvqa/utils.py")
    given = {"EvalAIAnswerProcessor": _processor(repositories), "statistics": statistics}
    code = load(path, ("textvqa_process_results",), **given)

    def score(response: str, target: Target) -> Score:
        row = {"answers": list(target.answers), "question_id": 1}
        return float(code["textvqa_process_results"](row, [response])["exact_match"])

    return score


def _mathvista(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    log = type("Log", (), {"info": staticmethod(lambda *_: None)})
    names = ("create_test_prompt", "extract_answer")
    asked = type("Model", (), {"get_response": staticmethod(lambda **_: "asked")})
    path = repositories.file("lupantech/MathVista", "evaluation/extract_answer.py")
    extraction = load(path, names, logging=log, demo_prompt="")
    normalization = ("get_most_similar", "normalize_extracted_answer", "safe_equal")
    distance = import_module("Levenshtein").distance
    path = repositories.file("lupantech/MathVista", "evaluation/calculate_score.py")
    scoring = load(path, normalization, distance=distance, logging=log)

    def score(response: str, target: Target) -> Score:
        choice = target.kind == "multiple-choice"
        kind = "text" if choice else target.details["answer_type"]
        question = "multi_choice" if choice else "free_form"
        choices, precision = list(target.options), target.details.get("precision")
        row = {"question_type": question, "answer_type": kind, "choices": choices, "query": "?", "pid": "1"}
        read = extraction["extract_answer"](asked, response, row, quick_extract=True)
        if read == "asked":
            return None
        found = scoring["normalize_extracted_answer"](read, choices, question, kind, precision)
        right = target.options[target.letters.index(target.answers[0])] if choice else target.answers[0]
        return float(scoring["safe_equal"](found, right))

    return score


def _mirb(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    names = ("word_to_num", "eval_scores", "exact_yes_no", "exact_in_match", "exact_match")
    code = load(repositories.file("ys-zong/MIRB", "evals/eval.py"), names)

    def score(response: str, target: Target) -> Score:
        row = {"prediction": response, "answers": target.answers[0]}
        return float(code["eval_scores"]([row], target.details["subset"]))

    return score


def _mementos(repositories: OfficialRepositories) -> Callable[[str, Target], Score]:
    notebook = json.loads(repositories.file("umd-huang-lab/Mementos", "GPT-4-assisted_evaluation.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    space: Names = {}
    for cell in cells:
        if cell.startswith(("class ", "def ")):
            exec(cell, space)
    spoken = {", ".join(objects + behaviors): (objects, behaviors) for objects, behaviors in KEYWORDS}
    code = {}
    for letter in "oa":
        cell = next(each for each in cells if f"{letter}_pred_sym_list =" in each)
        code[letter] = passage(cell, f"{letter}_pred_sym_list =", f"{letter}_f1_score =")

    def score(response: str, target: Target) -> Score:
        found = []
        for letter, name, graph, said in zip(
            "oa", ("objects", "behaviors"), ("ObjectGraph", "ActionGraph"), spoken[response], strict=True
        ):
            network = space[graph]()
            for keyword, alike in target.details["synonyms"].items():
                for word in alike:
                    network.add_path([word], keyword)
            listed = {f"{letter}_reference_list": list(target.details[name]), f"{letter}_prediction_list": list(said)}
            scope = {**space, **listed, "object_graph": network, "action_graph": network}
            exec(code[letter], scope)
            found.append(scope[f"{letter}_f1_score"])
        return float(sum(found) / 2)

    return score


SCORERS: dict[str, Callable[[OfficialRepositories], Callable[[str, Target], Score]]] = {
    "mantis": _mantis,
    "mvbench": _mvbench,
    "blink": _blink,
    "blink-lmms-eval": _blink_lmms,
    "mmmu": _mmmu,
    "mmbench": _mmbench,
    "scienceqa": _scienceqa,
    "vqa": _vqa,
    "vqa-literal": _vqa_literal,
    "vqa-evalai": _vqa_evalai,
    "mathvista": _mathvista,
    "mirb": _mirb,
    "mementos": _mementos,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
