"""Each metric beside a naive one: cases in which the official implementation says something else.

The expected credits were worked out from the official code that each metric names.
"""

import json
from pathlib import Path

import pytest

from components.evaluation.scoring.metrics import mathvista, mementos, mmmu, vqa
from components.evaluation.scoring.score_response import METRICS, score_response
from components.evaluation.scoring.targets import Target
from mantis.errors import EvaluationError

OPTIONS = ("a cat", "two dogs", "Both images", "nothing at all")
CHOICE = Target(kind="multiple-choice", options=OPTIONS, answers=("B",))
TRUE = Target(kind="true-false", options=("True", "False"), answers=("B",))


def short(*answers: str, **details: object) -> Target:
    return Target(kind="short", answers=answers, details=details)


def number(answer: str, kind: str, precision: float | None = None) -> Target:
    return Target(kind="number", answers=(answer,), details={"answer_type": kind, "precision": precision})


def naive(response: str, target: Target) -> float:
    """The whole response is the answer, but for case and spaces around it."""
    return float(response.strip().lower() in [answer.lower() for answer in target.answers])


TEN = short(*["yes"] * 3, *["no"] * 7)
NINE = short(*["two"] * 2, *["red"] * 8)
OPEN = short("42.5")
MADE = {"objects": ["dog", "ball", "park"], "behaviors": ["run", "jump"],
        "vocabulary": {"objects": ["cat"], "behaviors": ["sleep"]}, "synonyms": {"dog": ["puppy"]}}  # fmt: skip
SEEN = Target(kind="keywords", answers=("A dog runs.",), details=MADE)

NO_DOGS = Target(kind="short", answers=("no dogs",), details={"question_type": "multi-choice"})
SEEN_CAT = Target(kind="short", answers=("the red cat sat",), details={"question_type": "open-ended"})

CASES: dict[str, list[tuple[str, Target, float]]] = {
    # TIGER-AI-Lab/Mantis, mantis/benchmark/eval.py: parse_answer, get_option, get_prediction
    "mantis": [
        ("(B)", CHOICE, 1),
        ("B. two dogs", CHOICE, 1),
        ("Both images show dogs.", CHOICE, 1),  # the first letter is an option
        ("The answer is B.", CHOICE, 1),
        ("The answer is Answer: B", CHOICE, 1),  # the second lead is looked past
        ("Final Answer: (B) two dogs", CHOICE, 1),
        ("two dogs", CHOICE, 1),  # T is no option: the text itself counts
        ("Answer: b", CHOICE, 1),
        ("Cats. Final answer: B", CHOICE, 1),
        ("1. B", CHOICE, 1),  # the first letter, not the first character
        ("Final Answer: B. No: Final Answer: A", CHOICE, 1),  # the first statement counts
        ("The statement is false.", TRUE, 1),
        ("false, not true", TRUE, 0),
        ("Final Answer: Red", short("red"), 1),
        ("red.", short("red"), 0),
    ],
    # TIGER-AI-Lab/Mantis, mantis/benchmark/eval_on_mvbench.py
    "mvbench": [
        ("(B)", CHOICE, 1),
        ("B) two dogs", CHOICE, 1),
        ("b", CHOICE, 0),  # a capital is wanted
        ("the answer is B", CHOICE, 1),
        ("the option is B.", CHOICE, 1),
        ("Answer: B", CHOICE, 1),
        ("Answer: A, no, Answer: B", CHOICE, 1),  # the last one
        ("Both", CHOICE, 1),
        ("1) B", CHOICE, 1),
        ("Best option:(B)", CHOICE, 1),
        ("Final Answer: B because of A", CHOICE, 1),
    ],
    # zeyofu/BLINK_Benchmark, eval/test_benchmark.py: analyze_answer, then the rules in place of GPT-3.5
    "blink": [
        ("(B)", CHOICE, 1),
        ("B", CHOICE, 1),
        ("I think (B) is right", CHOICE, 1),  # a word of the text
        ("(A) or (C)\n\nSo (B) fits", CHOICE, 1),  # the last paragraph
        ("(B)\n\n(A) or (C)", CHOICE, 0),  # two in the last paragraph, three in all
        ("Answer: B", CHOICE, 1),  # not exact, so strict scoring reads it
        ("The correct answer is (B).", CHOICE, 1),  # "(B)." is no word "(B)"
        ("B\n\nExplanation: (A) is wrong.", CHOICE, 0),  # officially the only word "(A)"
        ("B</s>", CHOICE, 1),
        ("it (B), really", CHOICE, 1),  # "(B)," is no word, but the only one in brackets
        ("two dogs it is", CHOICE, 1),  # can_infer finds the text
        ("B) a cat", CHOICE, 1),  # letter and text differ: strict scoring reads nothing, can_infer the letter
        ("**B** since they bark", CHOICE, 1),
        ("the only fit is (B)", CHOICE, 1),
        ("E", CHOICE, 0),
        ("Both", CHOICE, 0),
    ],
    # lmms-eval, lmms_eval/tasks/blink/utils.py: _extract_answer_letter
    "blink-lmms-eval": [
        ("(B)", CHOICE, 1),
        ("( B )", CHOICE, 1),
        ("B.", CHOICE, 1),
        ("(b) two dogs", CHOICE, 1),
        ("B) two", CHOICE, 1),
        ("b. two dogs", CHOICE, 1),
        ("Both", CHOICE, 1),
        ("B or C", CHOICE, 1),
        ("by the window", CHOICE, 1),
        ("B, the dogs", CHOICE, 1),
        ("Answer: B", CHOICE, 0),
    ],
    # MMMU-Benchmark/MMMU, mmmu/utils/eval_utils.py
    "mmmu": [
        ("(B)", CHOICE, 1),
        ("B.", CHOICE, 1),
        ("I think B is right", CHOICE, 1),
        ("A or B", CHOICE, 1),  # the last that is named
        ("(B) rather than A", CHOICE, 1),  # brackets come first
        ("(A), no, (B)", CHOICE, 1),
        ("the picture shows clearly just two dogs here", CHOICE, 1),  # more than five words: the option's text
        ("'B'", CHOICE, 1),
        ("The answer is B", CHOICE, 1),
        ("So the value is 42.5", OPEN, 1),
        ("x = 42.50", OPEN, 1),
        ("42.504", OPEN, 1),  # two decimals
        ("It is 1,042 so 42.5", OPEN, 1),
        ("about forty", OPEN, 0),
        ("Therefore a photosynthesis", short("photosynthesis"), 1),
        ("Therefore the photosynthesis rate", short("photosynthesis"), 0),  # "is " ends a word there
    ],
    # VLMEvalKit, vlmeval/utils/matching_util.py: can_infer
    "mmbench": [
        ("(B)", CHOICE, 1),
        ("B. two dogs", CHOICE, 1),
        ("Answer: B", CHOICE, 1),
        ("The answer is B", CHOICE, 1),
        ("the correct answer is **B** since one sees so many dogs here", CHOICE, 1),
        ("two dogs", CHOICE, 1),
        ("I see two dogs there", CHOICE, 1),
        ("B: because of that", CHOICE, 1),
        ("*B*", CHOICE, 1),
        ("{B}", CHOICE, 1),
        ("B or maybe not, but in any case no cats at all", CHOICE, 0),  # more words follow than may
        ("Cannot determine the answer B", CHOICE, 0),
    ],
    # lmms-eval, lmms_eval/tasks/scienceqa/utils.py: sqa_process_results
    "scienceqa": [
        ("B.", CHOICE, 1),
        ("B. two dogs", CHOICE, 1),
        ("B. The answer is C.", CHOICE, 1),  # the beginning counts before the statement
        ("F. The answer is B.", CHOICE, 1),  # five letters count at the beginning
        ("B.two", CHOICE, 1),
        ("B. or C.", CHOICE, 1),
        ("  B. dogs", CHOICE, 1),
        ("B.\nBecause", CHOICE, 1),
        ("B. A. C.", CHOICE, 1),
        ("B. I am not sure", CHOICE, 1),
        ("B... well", CHOICE, 1),
        ("B.)", CHOICE, 1),
    ],
    # GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py
    "vqa": [
        ("yes", TEN, 0.9),  # three of ten
        ("two", NINE, 0.6),  # two of ten
        ("2", NINE, 0.6),  # numbers as digits
        ("the red", NINE, 1),  # articles
        ("Red.", NINE, 1),  # a full stop without a digit behind it
        ("red!", NINE, 1),
        ("none", short(*["0"] * 9, "one"), 1),
        ("dont know", short(*["don't know"] * 9, "no"), 1),
        ("red-white", short(*["red white"] * 9, "no"), 1),
        ("1,000", short(*["1000"] * 9, "no"), 1),
        ("Yes", short(*["yes"] * 10), 1),  # `literal` gives 0
        ("a", short(*["an"] * 9, "no"), 1),  # both become nothing
    ],
    # EvalAI's form of it, as in lmms-eval, lmms_eval/tasks/_task_utils/vqa_eval_metric.py
    "vqa-evalai": [
        ("Yes", TEN, 0.9),
        ("two", NINE, 0.6),
        ("2", NINE, 0.6),
        ("the red", NINE, 1),
        ("Red.", NINE, 1),
        ("red?", NINE, 1),
        ("the dog's", short(*["dog 's"] * 9, "no"), 1),
        ("red, white", short(*["red white"] * 9, "no"), 1),
        ("1,000", short(*["1000"] * 9, "no"), 1),
        ("a yes", short(*["yes"] * 10), 1),  # unlike VQAv2's
        ("dont", short(*["don't"] * 9, "no"), 1),
    ],
    # lupantech/MathVista, evaluation/extract_answer.py and calculate_score.py, without the language model
    "mathvista": [
        ("two dogs", CHOICE, 1),
        ("(B) two dogs", CHOICE, 1),
        ("tow dogs", CHOICE, 1),  # the most similar text
        ('The answer is "(B)".', CHOICE, 1),
        ("Final Answer: B", CHOICE, 1),
        ("7.0", number("7", "integer"), 1),
        ("The answer is 7", number("7", "integer"), 1),
        ("3 + 4 = 7", number("7", "integer"), 1),  # the last number of what is stated
        ("7.9", number("7", "integer"), 1),  # int() cuts off
        ("1.249", number("1.25", "float", 2.0), 1),
        ("1,200", number("1200", "integer"), 1),
        ("Answer: [1,2]", number("[1, 2]", "list"), 1),
    ],
    # ys-zong/MIRB, evals/eval.py
    "mirb": [
        ("There are 3 of them", short("3", subset="count"), 1),
        ("three", short("3", subset="count"), 1),
        ("Third", short("3", subset="visual_chain"), 1),
        ("3.\nBecause", short("3", subset="3d_scene"), 1),
        ("Yes, it does", short("yes", subset="analogy"), 1),
        ("I cannot say", short("no", subset="analogy"), 1),  # whatever is not yes
        ("Eyes", short("yes", subset="attribute"), 1),  # "yes" occurs
        ("It is Paris", short("Paris", subset="sightseeing"), 1),
        ("A.", short("A", subset="food"), 1),
        ("A\nsince it is red", short("A", subset="codeu"), 1),
        ("seaborn. Or so", short("seaborn", subset="plot_code"), 1),
    ],
    # SQuAD's evaluate-v1.1.py: token F1
    "text-overlap": [
        ("The red dog", short("red dog"), 1),
        ("a red, dog!", short("red dog"), 1),
        ("dog red", short("red dog"), 1),
        ("An answer", short("answer."), 1),
        ("red dog's", short("red dogs"), 1),
        ("the the dog", short("dog"), 1),
        ("red", short("red dog"), 2 / 3),
        ("red dog cat", short("red dog"), 0.8),
        ("dog dog", short("dog"), 2 / 3),
        ("two red dogs", short("red dogs", "big dogs"), 0.8),
        ("cat", short("red dog"), 0),
    ],
    # umd-huang-lab/Mementos, GPT-4-assisted_evaluation.ipynb, without GPT-4
    "mementos": [
        ("dog ball park run jump", SEEN, 1),
        ("Dogs, balls and parks; jumping and running", SEEN, 0.5 * 1 + 0.5 * 2 / 3),  # "runn" is not "run"
        ("The puppy jumped", SEEN, 0.5 * 2 / 4 + 0.5 * 2 / 3),  # a synonym
        ("a dog", SEEN, 0.25),
        ("a dog and a cat", SEEN, 0.5 * 2 / 5),  # a cat occurs elsewhere: precision
        ("a dog and a cow", SEEN, 0.25),  # a cow nowhere
        ("a dog runs and sleeps", SEEN, 0.25 + 0.25),
        ("dog dog dog", SEEN, 0.25),
        ("it runs", SEEN, 0.5 * 2 / 3),
        ("The dog's ball", SEEN, 0.5 * 4 / 5),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "response", "target", "expected"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_official(metric: str, response: str, target: Target, expected: float) -> None:
    assert score_response(response, target, metric).official == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", CASES)
def test_a_naive_metric_differs_in_at_least_ten(metric: str) -> None:
    assert sum(naive(response, target) != expected for response, target, expected in CASES[metric]) >= 10


def test_every_metric_has_cases() -> None:
    recorded = {row["metric"] for row in json.loads(Path(__file__).with_name("official_multi_image.json").read_text())}
    assert set(CASES) | recorded == set(METRICS)
    with pytest.raises(EvaluationError, match=r"bleu.*mathvista"):
        score_response("", CHOICE, "bleu")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("response", ["", " ", "\n", "?", "(", "I cannot see any image.", "\u7b54\u6848", "x" * 5000])
def test_nothing_sensible_gets_nothing_and_breaks_nothing(metric: str, response: str) -> None:
    own = {
        "mementos": SEEN,
        "vqa": TEN,
        "vqa-evalai": TEN,
        "mirb": short("3", subset="count"),
        "llava-interleave": short("B", question_type="multi-choice"),
        "vlm2-bench": short("T", category="gc-mat", images=2),
    }
    target = own.get(metric, CHOICE)
    judged = score_response(response, target, metric)
    assert (judged.official, judged.strict) == (0, 0)
    assert 0 <= score_response(response, number("7", "integer"), "mathvista").official <= 1


def test_vqa_accuracy_leaves_each_one_out() -> None:
    for same, expected in [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]:
        target = short(*["red"] * same, *["blue"] * (10 - same))
        # What the official loop does, written out.
        worth = [min(1, ([*target.answers[:i], *target.answers[i + 1 :]]).count("red") / 3) for i in range(10)]
        assert (
            score_response("red", target, "vqa").official == pytest.approx(sum(worth) / 10) == pytest.approx(expected)
        )


def test_vqa_punctuation_as_the_official_code_has_it() -> None:
    assert vqa.normalize("red/blue") == "red blue"
    assert vqa.normalize("red /blue") == "red blue"  # a space touches the mark: it vanishes
    assert vqa.normalize("a.m.") == "am"
    assert vqa.normalize("3.5") == "3.5"
    assert vqa.normalize("1,000-2,000") == "10002000"  # grouped digits: every mark vanishes
    assert vqa.normalize("Whats the none of two") == "what's 0 of 2"


def test_mmmu_open_parsing() -> None:
    assert 42.5 in mmmu.parse_open("So x is 42.5 m.")
    assert mmmu.parse_open("B") == {" b", "b "}
    assert 1200.0 in mmmu.parse_open("the result 1,200")


def test_mathvista_edit_distance() -> None:
    assert mathvista.edit_distance("kitten", "sitting") == 3
    assert mathvista.edit_distance("", "abc") == 3
    assert mathvista.most_similar("tow dogs", OPTIONS) == "B"


def test_mementos_f1_is_the_harmonic_mean() -> None:
    right, said = frozenset("abcd"), frozenset("abx")
    precision, recall = 2 / 3, 2 / 4
    assert mementos.f1(right, said) == pytest.approx(2 * precision * recall / (precision + recall))
    assert score_response("The puppy jumped", SEEN, "mementos").strict == pytest.approx(
        0.5 * 2 / 3
    )  # synonyms do not count


@pytest.mark.parametrize(
    ("response", "target", "expected"),
    [
        ("no, dogs", NO_DOGS, 1),  # a mark beside a blank is removed
        ("no ,dogs", NO_DOGS, 1),
        ("no,dogs", NO_DOGS, 1),  # any other becomes a blank
        ("no dog", NO_DOGS, 0),
        ("a red dog sat", SEEN_CAT, 0.5),  # two of four words, in both directions
        ("sat red", SEEN_CAT, 1 / 3),  # one word in order, of two and of four
        ("the red cat sat", SEEN_CAT, 1),
        ("", SEEN_CAT, 0),
        ("...", SEEN_CAT, 0),
    ],
)
def test_llava_interleave_compares_plain_texts_and_words_in_order(
    response: str, target: Target, expected: float
) -> None:
    """As lmms_eval/tasks/llava_interleave_bench/utils.py of lmms-eval with rouge 1.0.1 does."""
    assert score_response(response, target, "llava-interleave").official == pytest.approx(expected, abs=1e-6)
