"""Every reason that the code gives is explained in reasons.yaml, and on the page about own data."""

import ast
import re

from components.data.prepare.reasons import reasons
from tests.helpers.paths import ROOT

GIVEN_BY = ("RowRejected", "RowRepaired", "Untrainable")
PAGE = ROOT / "docs" / "how-to" / "bring-your-data.md"


def given_reasons() -> dict[str, str]:
    """The words that the code passes as a reason, with the module that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "components" / "data").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in GIVEN_BY:
                words = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "reason")]
                found |= {str(word.value): path.name for word in words if isinstance(word, ast.Constant)}
    return found


def test_every_reason_of_the_code_is_explained() -> None:
    given = given_reasons()
    assert len(given) > 40
    assert {word: module for word, module in given.items() if word not in reasons()} == {}


def test_every_reason_for_a_drop_has_a_remedy() -> None:
    assert [word for word, reason in reasons().items() if reason.action == "dropped" and not reason.remedy] == []


def test_the_page_lists_every_reason_with_its_meaning() -> None:
    rows = re.findall(r"^\| `([\w-]+)`( \*)? \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    listed = {word: (meaning, not star) for word, star, meaning in rows if word in reasons()}
    assert listed == {word: (reason.meaning, reason.counts) for word, reason in reasons().items()}


def test_only_limits_of_the_recipe_and_copies_do_not_count() -> None:
    assert [word for word, reason in reasons().items() if not reason.counts] == [
        "duplicate", "images-too-many", "too-long",
    ]  # fmt: skip
