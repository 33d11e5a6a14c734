"""Every rule is linear: a hostile response of 100 KB takes less than 50 ms, and twice the text about twice the time."""

import time
from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from components.evaluation.scoring.answer_extraction import stated, strict_option
from components.evaluation.scoring.metrics.metric_result import MetricResult
from components.evaluation.scoring.response_text import LIMIT, cut, plain
from components.evaluation.scoring.score_response import METRICS, Rule, Variant, rules, score_response
from components.evaluation.scoring.targets import Target

SIZE = 100_000
SECONDS = 0.05
SLACK = 2  # of a shared machine, in a ratio of two times
BUSY = 4  # of a shared machine, in a time; a rule that is not linear takes a hundred times as long

# Pieces that make a careless pattern try every place again and again.
PIECES = (
    "(", "[", "<", "<|", "\\boxed{", "*", " ", "\n", "A", "B ", "a\n", "B\n", "(A)\n", "A. ", "A, ", "(A) ", "1", "1,",
    "1.", "1,000,", "1e", "e5", ".", "-", "=", "is 1\n", "so ", "answer", "answer is ", "Answer: ", "the answer is B ",
    "is B ",
    'The answer is "', "answer to the question ", "option ", "not ", "or ", "because ", "I would say ", "'", "_",
    "\u7b54\u6848", "\u3002", "\uff08B", "</think>", "<answer>", "dog ", "correct ", "correct  answer  ", "two ", "x",
)  # fmt: skip

CHOICE = Target(kind="multiple-choice", options=("cat", "dog", "bird", "fish"), answers=("B",))
TEN = Target(kind="short", answers=("dog",) * 7 + ("dogs",) * 3)
WORDS = [f"word{number} of" for number in range(2000)]
STORY = Target(
    kind="keywords",
    answers=("A dog.",),
    details={
        "objects": ["dog"],
        "behaviors": ["run"],
        "vocabulary": {"objects": WORDS, "behaviors": WORDS},
        "synonyms": {word: [f"{word} it"] for word in WORDS},
    },
)
TARGETS = {
    "mementos": [STORY],
    "vqa": [TEN],
    "vqa-evalai": [TEN],
    "text-overlap": [TEN],
    "llava-interleave": [
        Target(kind="short", answers=("B",), details={"question_type": "multi-choice"}),
        Target(kind="short", answers=("A dog runs. It is red.",), details={"question_type": "open-ended"}),
    ],
    "vlm2-bench": [
        Target(kind="short", answers=("3",), details={"category": category, "images": 4})
        for category in ("gc-mat", "oc-cnt", "pc-grp")
    ],
    "mmmu": [CHOICE, Target(kind="short", answers=("42.5",))],
    "mantis": [CHOICE, TEN],
    "mirb": [
        Target(kind="short", answers=("3",), details={"subset": subset}) for subset in ("count", "food", "analogy")
    ],
    "mathvista": [
        CHOICE,
        Target(kind="number", answers=("7",), details={"answer_type": "integer", "precision": None}),
        Target(kind="number", answers=("[1]",), details={"answer_type": "list", "precision": None}),
    ],
}


def pairs() -> list[str]:
    rng = Random(0)
    return ["".join(rng.sample(PIECES, 2)) for _ in range(30)]


def repeated(piece: str) -> str:
    return (piece * (SIZE // len(piece) + 1))[:SIZE]


def mixed() -> list[str]:
    rng = Random(0)
    return ["".join(rng.choices(PIECES, k=SIZE))[:SIZE] for _ in range(3)]


REPEATED = [repeated(piece) for piece in PIECES] + mixed()
REPEATED_PAIRS = [repeated(pair) for pair in pairs()]


def processor_seconds(parser: Callable[[str], object], text: str) -> float:
    """The least time of three calls, since other processes share the machine. No call finds its text in a cache."""
    best = float("inf")
    for attempt in range(3):
        began = time.process_time()
        parser(text[attempt:])
        best = min(best, time.process_time() - began)
        if best < SECONDS:
            break
    return best


@pytest.mark.parametrize(
    "responses", [REPEATED, pytest.param(REPEATED_PAIRS, marks=pytest.mark.slow)], ids=["", "pairs"]
)
@pytest.mark.parametrize("metric", METRICS)
def test_no_rule_needs_more_than_its_time(metric: str, responses: list[str]) -> None:
    functions = rules(metric)
    for target in TARGETS.get(metric, [CHOICE]):
        readings: list[Rule] = [functions.official, functions.strict]
        readings += [partial(_varied, variant, functions.official) for variant in functions.variants.values()]
        for rule in readings:
            for response in responses:
                spent = processor_seconds(partial(_applied, rule, target), cut(response))
                assert spent < BUSY * SECONDS, (rule, response[:40])


def _applied(rule: Rule, target: Target, text: str) -> MetricResult:
    return rule(text, target)


def _varied(variant: Variant, official: Rule, text: str, target: Target) -> MetricResult:
    return variant(text, target, official(text, target))


@pytest.mark.parametrize("parser", [plain, stated, lambda text: strict_option(text, ("cat", "dog"))])
def test_the_time_of_a_parser_grows_with_the_text_and_not_faster(parser: Callable[[str], object]) -> None:
    for piece in PIECES:
        one, four = (processor_seconds(parser, piece * (size // len(piece))) for size in (20_000, 80_000))
        assert four < 4 * SLACK * max(one, 0.004), piece


def test_a_long_response_is_cut_at_both_ends_and_says_so() -> None:
    for response in ("Answer: B\n" + "x" * SIZE, "x" * SIZE + "\nAnswer: B", "x " * SIZE + "\nThe answer is (B)."):
        judged = score_response(response, CHOICE, "blink")
        assert (judged.cut, judged.strict, judged.official) == (True, 1, 1)
    lost = score_response("x" * SIZE + "\nAnswer: B\n" + "x" * SIZE, CHOICE, "blink")
    assert (lost.cut, lost.parsed) == (True, None)
    assert not score_response("Answer: B".rjust(LIMIT), CHOICE, "blink").cut
    assert score_response("Answer: B".rjust(LIMIT + 1), CHOICE, "blink").cut
    assert len(cut("x" * SIZE)) == LIMIT + 1
