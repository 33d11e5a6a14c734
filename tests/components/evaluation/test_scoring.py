import pytest

from components.evaluation.scoring import score

OPTIONS = ["a cat", "two dogs", "Both images", "nothing at all"]
WORDS = ["red", "dark grey", "blue"]

# response, what `official` understands, what `strict` understands; the right answer is B
CHOICES = [
    ("B", "B", "B"),  # right
    ("C", "C", "C"),  # wrong
    ("(B)", "B", "B"),  # in brackets
    ("b", "B", "B"),  # lower case
    ("b.", "B", "B"),
    ("B. two dogs", "B", "B"),
    ("(b) two dogs", "B", "B"),
    ("B) two dogs", "B", "B"),
    ("two dogs", "two dogs", "B"),  # the option's text: officially its first letter is no option
    ("a cat", "A", "A"),
    ("Both images show dogs.", "B", None),  # the official weakness
    ("Both images", "B", "C"),
    ("Both images show cats, so the answer is C.", "C", "C"),  # verbose
    ("Let me think. First... Final Answer: B", "B", "B"),
    ("Final answer: (B) two dogs", "B", "B"),
    ("Answer: B", "B", "B"),
    ("Final Answer: A. No, wait. Final Answer: B", "A", "B"),  # stated twice
    ("(A) or (B)", "A", None),  # two letters
    ("A, B", "A", None),
    ("B. Not C.", "B", None),
    ("I cannot see any image.", None, None),  # refusal
    ("Die Antwort ist B", "D", None),  # another language
    ("", None, None),  # empty
    ("E", None, None),  # no such option
    ("42", None, None),
    ("Nothing at all.", None, "D"),
]


def letter(text):
    return {"two dogs": "B"}.get(text, text)


@pytest.mark.parametrize(("response", "official", "strict"), CHOICES)
def test_multiple_choice(response, official, strict) -> None:
    for scoring, expected in (("official", letter(official)), ("strict", strict)):
        verdict = score(response, answer="B", options=OPTIONS, answer_type="multiple-choice", scoring=scoring)
        assert verdict.understood == expected, scoring
        assert verdict.correct == (expected == "B")


# response, right officially, right strictly, understood strictly; the right answer is "dark grey"
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


@pytest.mark.parametrize(("response", "official", "strict", "understood"), SHORT)
def test_short_answers(response, official, strict, understood) -> None:
    def judged(scoring):
        return score(response, answer="dark grey", options=WORDS, answer_type="short", scoring=scoring)

    assert judged("official").correct == official
    assert judged("strict").correct == strict
    assert (judged("strict").understood is not None) == understood


def test_short_answers_without_options_are_compared_as_they_are() -> None:
    assert score("Paris.", answer="paris", options=[], answer_type="short", scoring="strict").correct
    wrong = score("London", answer="paris", options=[], answer_type="short", scoring="strict")
    assert (wrong.understood, wrong.correct) == ("London", False)
