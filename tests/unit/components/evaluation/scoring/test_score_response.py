import json

import pytest

from components.evaluation.scoring.score_response import score_response
from components.evaluation.scoring.targets import Target, parse_target
from mantis.errors import InputError

OPTIONS = ("a cat", "two dogs", "Both images", "nothing at all")
CHOICE = Target(kind="multiple-choice", options=OPTIONS, answers=("B",))
WORD = Target(kind="short", options=("red", "dark grey", "blue"), answers=("dark grey",))

# response, right officially, what strict scoring understands
CHOICES = [
    ("B", True, "B"),  # right
    ("C", False, "C"),  # wrong
    ("(B)", True, "B"),  # in brackets
    ("b", True, "B"),  # lower case
    ("b.", True, "B"),
    ("B. two dogs", True, "B"),
    ("(b) two dogs", True, "B"),
    ("B) two dogs", True, "B"),
    ("two dogs", True, "B"),  # the option's text: officially its first letter is no option
    ("a cat", False, "A"),
    ("Both images show dogs.", True, None),  # the official weakness
    ("Both images", True, "C"),
    ("Both images show cats, so the answer is C.", False, "C"),  # verbose
    ("Let me think. First... Final Answer: B", True, "B"),
    ("Final answer: (B) two dogs", True, "B"),
    ("Answer: B", True, "B"),
    ("Final Answer: A. No, wait. Final Answer: B", False, "B"),  # stated twice
    ("(A) or (B)", False, None),  # two letters
    ("A, B", False, None),
    ("B. Not C.", True, "B"),
    ("I cannot see any image.", False, None),  # refusal
    ("Die Antwort ist B", False, None),  # another language
    ("", False, None),  # empty
    ("E", False, None),  # no such option
    ("42", False, None),
    ("Nothing at all.", False, "D"),
]


@pytest.mark.parametrize(("response", "official", "strict"), CHOICES)
def test_multiple_choice(response: str, official: bool, strict: str | None) -> None:
    judged = score_response(response, CHOICE, "mantis")
    assert judged.official == official
    assert judged.parsed == strict
    assert judged.strict == (strict == "B")
    assert judged.score("official") == official


# response, right officially, right strictly, parsed strictly; the right answer is "dark grey"
SHORT = [
    ("dark grey", True, True, True),
    ("Dark Grey", True, True, True),
    (" dark grey\n", True, True, True),
    ("dark grey.", False, True, True),
    ("Final Answer: dark grey", True, True, True),
    ("The answer is dark grey.", False, True, True),
    ("grey", False, False, False),
    ("red", False, False, True),
    ("It is dark grey", False, False, False),
    ("dark grey or red", False, False, False),
    ("", False, False, False),
]


@pytest.mark.parametrize(("response", "official", "strict", "parsed"), SHORT)
def test_short_answers(response: str, official: bool, strict: bool, parsed: bool) -> None:
    judged = score_response(response, WORD, "mantis")
    assert (judged.official, judged.strict, judged.parsed is not None) == (official, strict, parsed)


def test_short_answers_without_options_are_compared_as_they_are() -> None:
    paris = Target(kind="short", answers=("paris",))
    assert score_response("Paris.", paris, "mantis").strict == 1
    wrong = score_response("London", paris, "mantis")
    assert (wrong.parsed, wrong.strict) == ("london", 0)


def test_a_target_survives_its_line() -> None:
    for target in (CHOICE, WORD, Target(kind="number", answers=("7",), details={"answer_type": "integer"})):
        assert parse_target(json.loads(json.dumps(target.to_json())), origin="line 1") == target
    assert Target(kind="short", answers=("red", "blue", "blue")).shown() == "blue"
    for wrong in (None, {}, {"kind": "essay", "options": [], "answers": [], "details": {}}):
        with pytest.raises(InputError, match="line 1"):
            parse_target(wrong, origin="line 1")
