"""Conversations whose tokens the official code decided: 18 forms of marks and spaces, and 100 generated ones.

Nothing of this project is imported here: the official package bears the name `mantis`, too.
"""

import json
import random
from itertools import groupby
from typing import Any

SHORT = (",", ":")
SEED = 20_240_502
GENERATED = 100
FORMS = {
    "mark, then a word": ["<image>What is this?", "a cat"],
    "mark, space, word": ["<image> What is this?", "a cat"],
    "mark, newline, word": ["<image>\nWhat is this?", "a cat"],
    "word, then a mark": ["What is this?<image>", "a cat"],
    "word, space, mark": ["What is this? <image>", "a cat"],
    "word, newline, mark": ["What is this?\n<image>", "a cat"],
    "mark in a sentence": ["Is <image> larger than <image>?", "no"],
    "marks without a space": ["<image><image>Same?", "yes"],
    "marks with a space": ["<image> <image> Same?", "yes"],
    "marks with a newline": ["<image>\n<image>\nSame?", "yes"],
    "three marks at the end": ["Which one? <image> <image> <image>", "the second"],
    "mark before a bracket": ["<image>(left) or <image> (right)", "left"],
    "a mark alone": ["<image>", "a dog"],
    "two spaces": ["<image>  What?", "  two  spaces"],
    "no image": ["Hello there", "General answer.\nSecond line"],
    "a later image": ["<image> First?", "one", "And <image>?", "two"],
    "letters beyond ASCII": ["<image> naïve café 日本", "é 🎉 ▁"],
    "special tokens as text": ["<image> say </s> and <|eot_id|>", "<s> ok"],
}
WORDS = [
    "What",
    "colour",
    "is",
    "the",
    "Square's",
    "edge?",
    "red,",
    "12",
    "images",
    "(left)",
    "naïve",
    "\n- item",
    "OK!",
]


def rows() -> list[dict[str, Any]]:
    """The conversations as rows of the official data format, each with its number of images."""
    found = [_row(name, turns) for name, turns in FORMS.items()]
    rng = random.Random(SEED)
    for number in range(GENERATED):
        turns = []
        for _ in range(rng.randint(1, 3)):
            question = rng.choices(WORDS, k=rng.randint(1, 8))
            for _ in range(rng.randint(0, 3)):
                question.insert(rng.randint(0, len(question)), "<image>")
            turns += [
                rng.choice(["", " ", "  ", "\n"]).join(question),
                " ".join(rng.choices(WORDS, k=rng.randint(1, 6))),
            ]
        found.append(_row(f"generated {number}", turns))
    return found


def _row(name: str, turns: list[str]) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {
        "id": name,
        "images": sum(turn.count("<image>") for turn in turns),
        "conversations": [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(turns)],
    }


def runs(values: list[int]) -> list[int | list[int]]:
    """Values, with every run of equal ones as [value, length]."""
    lengths = [(value, len(list(same))) for value, same in groupby(values)]
    return [value if length == 1 else [value, length] for value, length in lengths]


def dump(families: dict[str, dict[str, Any]]) -> str:
    """The golden file: one conversation a line."""
    parts = []
    for family, cases in families.items():
        lines = ",\n".join(
            f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(case, separators=SHORT)}"
            for name, case in cases.items()
        )
        parts.append(f"{json.dumps(family)}: {{\n{lines}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
