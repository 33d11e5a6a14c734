"""Strict scoring of choices: plainly stated answers in many forms, and answers that state no option or several."""

import pytest

from components.evaluation.scoring.answer_extraction import LEADS, NOUNS, VERBS, stated, statements, strict_option

OPTIONS = ("cat", "dog", "bird", "fish")

# Every response states the option B, "dog", and no other one.
STATED = [
    "B", "(B)", "b", " B ", "B\n", "b.", "(B", "B)", "'B'", '"B"', "`B`", "[B]", "{B}", "**B**", "__B__", "_B_", "*B*",
    "\uff22", "\uff08B\uff09", "\u3010B\u3011", "B\u3002", "\u7b54\u6848\uff1aB", "\u7b54\u6848\u662fB",
    "\u6211\u9009B", "\u201cB\u201d", "<b>B</b>", "<answer>B</answer>", "<answer>\n(B) dog\n</answer>", "\\boxed{B}",
    "$\\boxed{\\text{B}}$", "The answer is $\\boxed{B}$.", "\\(B\\)", "B</s>", "B<|im_end|>", "Answer: B<|eot_id|>",
    "<s> B", "B<end_of_utterance>", "[/INST] B", "<think>A? Or (C)?</think>B",
    "<think>The answer is A.</think>\n\nThe answer is **B**.", "The correct answer is **B**.", "The best answer is B",
    "My answer is B.", "Answer: **B**", "**Answer: B**", "**Answer:** B", "the answer is: B", "Answer:\nB",
    "Answer : B",
    "Answer - B", "Answer B", "Answer:B", "ANSWER: B", "Answer is B", "the answer's B", "Ans: B", "Ans. B",
    "### Answer\n\nB", "Final Answer: B. dog", "**Final Answer:** B", "Correct answer: B", "The correct choice is (b).",
    "The correct option is: B", "The answer is option B", "The answer is: option (B), dog.", "The answer would be B",
    "The answer to this question is (B).", "The answer to the last problem is B", '{"answer": "B"}', "Option B",
    "Option (B)", "option: B", "Choice: B", "Prediction: B", "Response: B", "B dog", "B) dog", "b) dog", "B. dog",
    "B.dog", "B:dog", "B: dog", "B - dog", "B, dog", "(B) dog", "**B) dog**", "B (dog)", "dog (B)", "dog", "a dog",
    "The dog.", "DOG", "**dog**", "The answer is dog.", "The answer is a dog", "The answer is \u201cdog\u201d.",
    "It is a dog.", "It's a dog", "I think it is a dog.", "Answer: A dog", "It is (B).", "It's B.",
    "I think (B) is right",
    "I think B is right", "B is the correct answer", "Sure! The answer is B", "A dog is shown. Answer: B",
    "The animal is a dog, so the answer is B.", "I choose B", "I would go with (B).", "I'd say B",
    "I would say option B",
    "Therefore, B.", "So it must be B.", "Both are barking. B", "A cat would be smaller. So the answer is B!",
    "B\n\nExplanation: A is wrong since it does not bark.", "B because A and C have wings.", "B, not C", "B. Not C.",
    "The answer is B because A and C are wrong.", "The best option is (B) dog, as it barks.",
    "Answer: B. (C) shows a bird while (D) shows a fish.", "Answer: (B) dog\n\nExplanation: (A) is a cat, (C) a bird.",
    "(A) cat\n(B) dog\n(C) bird\n(D) fish\n\nAnswer: B", "Choices: (A) cat (B) dog. The correct answer is B.",
    "A has fur.\n\nB barks.\n\nTherefore, **Option B** is the correct choice.", "A could fly.\nSo (B) is right.",
    "Examine each option:\n- Option A: no wings.\n- Option B: it barks.\n\nOption B is the correct choice.",
    "Look.\nC) This has wings. Out.\nD) It swims. Out.\nThe only option left is (B) dog.",
    "Answer: A. No, wait. Answer: B", "The answer is A? No. The answer is B.", "neither (A) nor (C), it is (B)",
]  # fmt: skip

# Every response states no option, or two.
UNCLEAR = [
    "", " ", "?", "E", "AB", "A B", "B C", "A or B", "A, B", "B and A", "B or A", "(A) and (B)", "(A) or (B)", "A/B",
    "either A or B", "Both (A) and (B)", "Options A and B are both right", "Answer: A or B", "Answer: A, B",
    "The answer is B or A.", "The answer is B or maybe C", "The answer is (B) or (C)", "The answer is either B or C",
    "The answer is dog or bird", "Answer: dog, bird", "The answer is E.", "The answer is not B.", "It is not (B).",
    "(B) is wrong", "B is wrong", "B is not correct", "Option B is incorrect", "Neither A nor B", "neither (A) nor (B)",
    "None of the above", "None of the options is correct.", "I don't know", "I cannot see any image.", "B cat",
    "B) cat",
    "(B) cat", "B: cat", "The correct answer is B) cat", "A dog is shown.", "A picture of animals", "B\nA",
    "A\nB\nC\nD",
    "A. cat\nB. dog\nC. bird\nD. fish", "A. cat B. dog C. bird D. fish", "(A) cat (B) dog (C) bird (D) fish",
    "Choices:\n(A) cat\n(B) dog", "vitamin C tablets", "cats and dogs", "dog house", "1", "Yes", "\\boxed{}",
    "A is correct.\nB is correct.", "The answer is", "Answer:", "<answer></answer>", "I", "Both animals are shown.",
]  # fmt: skip


@pytest.mark.parametrize("response", STATED)
def test_a_plain_statement_is_understood(response: str) -> None:
    assert strict_option(response, OPTIONS) == "B"


@pytest.mark.parametrize("response", UNCLEAR)
def test_no_option_or_several_are_not(response: str) -> None:
    assert strict_option(response, OPTIONS) is None


def test_every_lead_is_found_in_either_case() -> None:
    """A search for LEAD_WORDS goes before the patterns, so it must let every lead pass."""
    leads = ["ans:", "the answer is", *(f"the {noun} is" for noun in NOUNS)]
    leads += [f"I {verb}" for verb in (*VERBS, "go with")]
    for lead in (*leads, *map(str.upper, leads)):
        assert any(pattern.search(f"{lead} B") for pattern in LEADS), lead
        assert "B" in statements(f"{lead} B"), lead


def test_another_option_is_understood_as_well() -> None:
    for response in ("Based on the image, it is a bird. The answer is C.", "C", "c) bird", "It is a bird", "bird"):
        assert strict_option(response, OPTIONS) == "C"
    for response in ("A", "a", "A.", "Answer: A cat", "A cat", "Both are wrong. A", "It must be A.", "A is right"):
        assert strict_option(response, OPTIONS) == "A"


def test_yes_and_no_may_have_a_reason_behind_a_comma() -> None:
    options = ("yes", "no")
    assert strict_option("No, there are two of them.", options) == "B"
    assert strict_option("So the answer is no, since none is red.", options) == "B"
    assert strict_option("Yes. Both are red.", options) == "A"
    assert strict_option("Yes, no, or maybe", options) is None


def test_a_stated_text_loses_its_markup() -> None:
    for response in (
        "two",
        "**two**",
        "The answer is two.",
        "Answer: `two`\nsince I see two",
        "\\boxed{two}",
        '"two".',
    ):
        assert stated(response) == "two"
    assert stated("One? The answer is one. No, the correct answer is two.") == "two"
