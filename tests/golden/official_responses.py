"""Tricky responses, invented here, with their targets. `write_official_scores` scores them officially."""

from components.evaluation.scoring.targets import Target

ANIMALS = Target(kind="multiple-choice", options=("cat", "dog", "bird", "fish"), answers=("B",))
SENTENCES = Target(
    kind="multiple-choice", options=("a cat", "two dogs", "Both images", "nothing at all"), answers=("B",)
)
TRUE = Target(kind="true-false", options=("True", "False"), answers=("A",))
FALSE = Target(kind="true-false", options=("True", "False"), answers=("B",))

# Responses to a choice of ANIMALS. Every metric for choices scores all of them.
CHOICES = (
    "B", "b", "(B)", "(b)", "B.", "b.", "B)", "B:", "B,", "B!", "'B'", "[B]", "{B}", "**B**", "(B", " B ", "B\n",
    "( B )",
    "B dog", "B. dog", "B.dog", "B) dog", "(B) dog", "B - dog", "B, dog", "b) dog", "dog", "Dog", "a dog", "dog.",
    "DOG",
    "A", "C", "E", "(E)", "A.", "(C) bird", "cat", "", " ", "?", "I cannot see any image.", "A or B", "B or C",
    "(A) or (B)",
    "(A) (B)", "A, B", "AB", "B A", "The answer is B", "The answer is B.", "The answer is (B).", "the answer is B",
    "The answer is: B", "Answer: B", "answer: b", "answer:B", "Answer: (B) dog", "Final Answer: B", "Final Answer: (B)",
    "final answer: dog", "The correct answer is B", "The correct answer is **B**.", "The best answer is B.",
    "It is (B).",
    "I think (B) is right", "I think B is right", "Option B", "Option (B)", "option B.", "the option is B",
    "the option is (B).", "Both", "Both are dogs", "By far the dog", "Because of the bark, B", "So it must be B.",
    "Therefore, the answer is (B)", "A dog is shown. Answer: B", "A cat? No. The answer is B.",
    "The answer is A. No, the answer is B.", "Answer: A. Answer: B", "Final answer: A. Final answer: B",
    "The answer is B. The answer is B.", "The answer is B. BECAUSE: it barks.", "B because A is a cat",
    "B\n\nExplanation: (A) is wrong.", "(B)\n\n(A) is wrong, and so is (C)", "(A) is wrong.\n\nSo (B) fits best.",
    "(A) or (C)\n\nno, (B) it is", "I see one dog in the picture here", "the picture shows one dog and one cat",
    "This is a picture in which a dog barks loudly", "(B) rather than (A) I would say", "it cannot be (A) so (B) it is",
    "1. B", "2", "B</s>", "<s> B", "\\boxed{B}", "Sorry, I can't help with images of people yet.",
    "Cannot determine the answer B", "Answer is B, clearly, as anyone would say at once", "B: since it barks",
    "answer is B", "Correct answer is c", "answer is **B** for the four reasons that I gave above in the text",
)  # fmt: skip

# BLINK's own code decides these alone.
IN_BRACKETS = (
    "(A)", "(B) dog", "(B) it is", "it is (B)", "so (B) it is", "I choose (B) here", "I choose (C) here", "(B) \n", "D",
    "(B)\nfor the bark", "a (B) b (B) c", "(B) (B)", "not (A) no\n\nbut (B) yes", "(A) (C)\n\n(B)", "(B)\n\nyes",
    "(D)\n\n(B)",
    "(B)\n\n(A) (C)", "text\n\n(B)\n\n", "text\n\n(B) dog\n\nmore", "The (B) dog", "(E) or (B)", "(E) (B)", "(b) (B)",
    "both (B) and B", "A (B)", "(B) A", "Answer: (B)", "Answer: (B) dog", "Answer: (A) cat", "the answer\n(B)", "\t(B)",
    "(B)\tdog", "option (B)", "option (C)", "1) (B)", "** (B) **", "_ (B) _", "yes (B) yes\n\nno", "no\n\nyes (B) yes",
    "C", "(C) (C)", "well, (B) then", "(A) I think", "(D) fish", "(B) dog (B) dog", "the picture: (B) !", "( (B) )",
    "x (B) y\n\nx (C) y", "x (C) y\n\nx (B) y",
)  # fmt: skip

TRUE_FALSE = (
    "True", "False", "true.", "false.", "TRUE", "(A)", "(B)", "A", "B", "The statement is true.",
    "The statement is false.",
    "It is not true but false", "true or false", "Yes", "No", "both", "I am sure: true", "Answer: True",
    "Answer: False",
    "Answer: B", "the answer is true", "", "Trueish", "Final answer: (A) True",
)  # fmt: skip

SHORT_ANSWERS = (
    "red", "Red", "RED", "red.", "the red", "a red", "it is red", "Red!", "red?", "red, white", "red,white",
    "red-white",
    "red/white", "red /white", "red / white", "(red)", "'red'", '"red"', "red\n", " red ", "red\nwhite",
    "red\twhite", "blue",
    "two", "2", "Two", "two.", "none", "None", "zero", "0", "ten", "10", "one two", "1,000", "1000", "1.000", "3.5",
    "3,5",
    ".5", "a.m.", "am", "dont", "don't", "Dont", "its", "whats up", "what's up", "dog's", "dogs", "the dog's", "an",
    "a", "the",
    "", " ", ".", "yes", "Yes", "YES", "yes.", "no", "yes and no", "the the red", "red the", "a red an", "r e d",
    "red;white",
    "red@white", "red_white", "[red]", "<red>", "red=red", "+1", "-1", "yall", "Id've", "seven eight", "12,345,678",
    "....................................................", "1. red", "red. white. blue.", "U.S.A.", "10:30", "50%",
    "$5",
)  # fmt: skip
GIVEN = (
    ("red",) * 10, ("red",) * 3 + ("white",) * 7, ("Red",) * 2 + ("red",) * 8, ("two",) * 2 + ("red",) * 8,
    ("2",) * 9 + ("3",), ("yes",) * 10, ("Yes",) * 10, ("don't",) * 9 + ("no",), ("red white",) * 4 + ("red",) * 6,
    ("1000",) * 5 + ("1,000",) * 5, ("dog's",) * 10, ("the red",) * 6 + ("none",) * 4, ("a",) * 9 + ("b",),
    ("3.5",) * 10,
)  # fmt: skip

OPEN_ANSWERS = (
    "42.5", "42.50", "42.504", "42.506", "So x is 42.5", "x = 42.5", "x=42.5", "It is 42.5 m.", "42.5.", "about 42.5 m",
    "1,042.5", "The result is 1,000", "1000", "1,000", "1e3", "1.0e3", "-42.5", "42,5", "42", "425", "42.5e0",
    "0.5", ".5",
    "The answer 42.5 is final", "Final answer 42.5", "So it could be 42.5 or 43", "thus 42.5\nso 7", "7\n42.5",
    "The value is 42.5. But not 7.", "photosynthesis", "Photosynthesis.", "It is photosynthesis",
    "the photosynthesis rate",
    "Therefore photosynthesis", "photo synthesis", "B", "b", "is B", "so b", "", " ", ".", ":", "is :", "is ,", "=",
    "x =",
    "no idea", "so", "so ", "result", "the result 42.5 result ", "answer = 42.5 = 85/2", "85/2", "42.5%", "$42.5",
    "(42.5)", "42.5,", "42.5, 43", "a 42.5 b", "1,0000", "12,345", "12345.00", "1.234e+2", "123.4", "-1e-3", "nan",
    "inf",
    "So inf", "The answer is 42.5 =", "x = 42.5 so ", "so the answer is ", "is so 42.5 = ", "final b is =",
    "is is is 42.5", "could be so is 42.5",
)  # fmt: skip
OPEN_RIGHT = (("42.5",), ("1000",), ("photosynthesis",), ("b",), ("42.5", "85/2"), ("12,345",), ("-0.001",), ("123.4",))

MIRB = (
    "3", "three", "Three", "There are 3 of them", "third", "Third.", "3.\nBecause", "3.5", "13", "0", "ten", "10",
    "zero",
    "no 3", "three dogs", "3 three", "33", "", " ", "\n3", "3\n\n4", "four\n3", "Yes", "yes.", "Yes, it does",
    "Eyes", "No",
    "no", "I cannot say", "not yes", "No. Yes", "no\nyes", "yesterday", "YES", "Paris", "It is Paris", "paris.",
    "In Paris, no",
    "London. Paris", "Par is", "Paris\nLondon", "London\nParis", "A", "a", "A.", "(A)", "A) x", "A\nsince", "A. x",
    "AB", "B",
    "seaborn", "Seaborn.", "seaborn. Or so", "import seaborn", ".A", ".", "..3", "3..", "A!", "A ", "answer: A",
    "first",
    "the 2nd", "1st", "twelve",
)  # fmt: skip
MIRB_RIGHT = (
    ("count", "3"), ("visual_chain", "3"), ("3d_scene", "10"), ("analogy", "Yes"), ("attribute", "no"),
    ("sightseeing", "Paris"),
    ("sightseeing", "yes"), ("food", "A"), ("codeu", "A"), ("plot_code", "seaborn"), ("arxiv", "Paris"),
    ("image_jigsaw", "A"),
)  # fmt: skip

MATH_CHOICES = (
    "5", "7", "7.5", "none", "7 ", "(B)", "(b)", "B", 'The answer is "B".', 'The answer is "(B) 7".',
    'The answer is "7".',
    'The answer is "7.5".', 'So it follows. The answer is "7".', 'The answer is "5". The answer is "7".',
    'The answer is "seven".', 'The answer is "".', 'The answer is "(D)".', 'The answer is "E".',
    'The answer is "(A) 5".',
    'The answer is "a".', 'The answer is "c".', 'The answer is "(B)"', 'The answer is "77".', 'The answer is "non".',
    'The answer is "7"."', 'The answer is "x" and "7".', 'The answer is "75".', 'The answer is "B) 7".',
    'First.\nThe answer is "7".', 'The answer is\n"7".',
)  # fmt: skip
MATH_NUMBERS = (
    "7", "7.0", " 7 ", "007", "+7", "-7", "7e0", "1_0", "70", "7.9", "7.04", "7.05", "6.95", "6.96", "0.7", ".7",
    "7.", "inf",
    "nan", "1e400", "-0", 'The answer is "7".', 'The answer is "7.0".', 'The answer is "7.04".', 'The answer is "-7".',
    'The answer is "70".', 'So. The answer is "7".', 'The answer is "0.7".', "10", "1.0", "0", "-7.0", "7.049", "7.051",
    'The answer is "10".', 'The answer is "007".',
)  # fmt: skip
MATH_RIGHT = (("integer", None, "7"), ("float", 1.0, "7.0"), ("float", 2.0, "7.05"), ("integer", None, "-7"))

# The keywords that a response names, for Mementos: first its objects, then its behaviours. GPT-4 would list them.
KEYWORDS = tuple(
    (objects, behaviors)
    for objects in (
        ("dog", "ball", "park"), ("dog",), ("ball", "dog"), ("puppy",), ("puppy", "ball"), ("cat",), ("dog", "cat"),
        ("ball", "cat", "dog"), ("park", "dog"),
    )
    for behaviors in (("run", "jump"), ("run",), ("sleep",), ("run", "sleep"), ("sprint",), ("sprint", "jump"),
    ("jump",))
)  # fmt: skip
STORY = Target(
    kind="keywords",
    answers=("A dog runs and jumps after a ball in a park.",),
    details={
        "objects": ["dog", "ball", "park"],
        "behaviors": ["run", "jump"],
        "vocabulary": {"objects": ["cat"], "behaviors": ["sleep"]},
        "synonyms": {"dog": ["puppy"], "run": ["sprint"]},
    },
)


def _short(answers: tuple[str, ...], **details: str) -> Target:
    return Target(kind="short", answers=answers, details=details)


def _math(kind: str, precision: float | None, answer: str) -> Target:
    return Target(kind="number", answers=(answer,), details={"answer_type": kind, "precision": precision})


MATH_OPTIONS = Target(kind="multiple-choice", options=("5", "7", "7.5", "none"), answers=("B",))
CHOICE_CASES = [(response, ANIMALS) for response in CHOICES] + [(response, SENTENCES) for response in CHOICES[::7]]
VQA_CASES = [(response, _short(GIVEN[place % len(GIVEN)])) for place, response in enumerate(SHORT_ANSWERS)] + [
    (response, _short(given)) for given in GIVEN for response in ("red", "Red", "Yes", "two", "the dog's", "1,000", "")
]

# Metric -> its cases.
CASES: dict[str, list[tuple[str, Target]]] = {
    "mantis": CHOICE_CASES
    + [(response, target) for response in TRUE_FALSE for target in (TRUE, FALSE)]
    + [(response, _short(("red",))) for response in SHORT_ANSWERS[:24]],
    "mvbench": CHOICE_CASES,
    "blink": CHOICE_CASES + [(response, ANIMALS) for response in IN_BRACKETS],
    "blink-lmms-eval": CHOICE_CASES,
    "mmmu": CHOICE_CASES
    + [(r, _short(OPEN_RIGHT[place % len(OPEN_RIGHT)])) for place, r in enumerate(OPEN_ANSWERS)]
    + [(response, _short(OPEN_RIGHT[0])) for response in OPEN_ANSWERS],
    "mmbench": CHOICE_CASES,
    "scienceqa": CHOICE_CASES,
    "vqa": VQA_CASES,
    "vqa-literal": VQA_CASES,
    "vqa-evalai": VQA_CASES,
    "mathvista": [(response, MATH_OPTIONS) for response in MATH_CHOICES]
    + [(response, _math(*right)) for right in MATH_RIGHT for response in MATH_NUMBERS],
    "mirb": [(r, _short((right,), subset=subset)) for r in MIRB for subset, right in MIRB_RIGHT],
    "mementos": [(", ".join(objects + behaviors), STORY) for objects, behaviors in KEYWORDS],
}
