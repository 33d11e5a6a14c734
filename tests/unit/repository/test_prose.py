from pathlib import Path

import pytest

from docs.prose_check import (
    ALLOWED,
    MAX_WORDS,
    ROOT,
    Allowance,
    check_file,
    complaints,
    means,
    problems,
    sentences,
    texts_of_python,
    update,
)

LONG = "One " + "word " * MAX_WORDS + "too many."


def texts(markdown: str) -> list[str]:
    return [sentence.text for sentence in sentences(markdown)]


def words_of(markdown: str) -> list[str]:
    """The words that were found, without their remedies."""
    return [problem.what.split("`")[1] for problem in problems(sentences(markdown))]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one clean page, one page with two problems and one module with one problem."""
    for name, text in {
        "docs/clean.md": "The step returns.",
        "docs/old.md": f"Whoever comes waits.\n\n{LONG}",
        "pipelines/a.py": '"""It is divided anew."""\n',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_project_has_no_more_problems_than_allowed() -> None:
    assert complaints(ROOT) == []


def test_a_sentence_ends_at_a_full_stop_a_list_item_or_a_paragraph() -> None:
    assert texts("One step. Two ranks, e.g. four.\n\n- an item\n- another\n  line\n\nLast") == [
        "One step.",
        "Two ranks, e.g. four.",
        "an item",
        "another line",
        "Last",
    ]


def test_code_tables_headings_and_comments_are_left_out() -> None:
    page = (
        "# What is it\n\n```\nwhoever\n```\n\n| whoever | anew |\n|---|---|\n\n    whoever\n\n<!-- whoever\nanew -->\n"
    )
    assert texts(page) == []


def test_a_code_span_and_the_target_of_a_link_are_one_word() -> None:
    (sentence,) = sentences("Run `make test, twice` as [the page](docs/whoever.md) says.")
    assert sentence.words == 6
    assert sentence.commas == 0


def test_commas_inside_of_numbers_do_not_count() -> None:
    (sentence,) = sentences("It reads 20,000 rows, then stops; it writes.")
    assert sentence.commas == 2


def test_a_long_sentence_is_found_with_its_line() -> None:
    (problem,) = problems(sentences(f"Short.\n\n{LONG}"))
    assert problem.line == 3
    assert problem.what == f"{MAX_WORDS + 3} words, at most {MAX_WORDS}"
    assert list(problems(sentences(LONG), words_only=True)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Whoever finds it follows it.", ["whoever"]),
        ("It lists what is missing.", ["what is"]),
        ("What is a fingerprint?", []),
        ("It names rows of which some differ.", ["rows of which"]),
        ("It names which rows of which subsets are read.", []),
        ("Stop after so many steps.", ["so many"]),
        ("There are so many that it waits.", []),
        ("The ranks start anew.", ["anew"]),
        ("The reason is told.", ["is told"]),
        ('The words `whoever` and "anew" are forbidden.', []),
    ],
)
def test_words_that_make_a_riddle(text: str, found: list[str]) -> None:
    assert words_of(text) == found


def test_docstrings_help_texts_and_errors_of_a_module_are_read() -> None:
    module = '''
"""Module."""

class Step:
    """Class."""

    def run(self, name: str = Option(help="Help.")) -> None:
        """Method.

        Raises:
            StepError: it failed.
            OSError: the disk is full.
        """
        raise StepError(f"{name} failed.", remedy="Remedy.")
'''
    found = [text for _, part in texts_of_python(module) for text in texts(part)]
    assert set(found) == {
        "Module.",
        "Class.",
        "Method.",
        "StepError: it failed.",
        "OSError: the disk is full.",
        "Help.",
        "CODE failed.",
        "Remedy.",
    }


def test_a_generated_page_is_checked_for_words_alone(tmp_path: Path) -> None:
    page = tmp_path / "cli.md"
    page.write_text(f"Whoever.\n\n{LONG}")
    assert len(check_file(page, "docs/reference/cli.md")) == 1
    assert len(check_file(page, "docs/cli.md")) == 2


def test_problems_fail_without_an_allowance_and_pass_with_it(project: Path) -> None:
    assert "docs/old.md: 2 problems, 0 are allowed." in complaints(project)
    update(project)
    assert complaints(project) == []
    assert Allowance.read(project / ALLOWED).problems == {"docs/old.md": 2, "pipelines/a.py": 1}


def test_one_more_problem_fails_and_cannot_be_updated_away(project: Path) -> None:
    update(project)
    (project / "docs/clean.md").write_text("It starts anew.")
    assert complaints(project)[-1] == "docs/clean.md: 1 problems, 0 are allowed."
    with pytest.raises(SystemExit, match="became worse"):
        update(project)


def test_an_allowance_that_is_too_high_fails_until_it_is_lowered(project: Path) -> None:
    update(project)
    (project / "docs/old.md").write_text("The first rank waits.")
    assert complaints(project) == [
        f"docs/old.md: 0 problems, {ALLOWED} still allows 2. Run it with --update.",
    ]
    update(project)
    assert complaints(project) == []
    assert Allowance.read(project / ALLOWED).problems == {"pipelines/a.py": 1}


def test_a_file_may_move_with_its_problems(project: Path) -> None:
    update(project)
    (project / "docs/old.md").rename(project / "docs/new.md")
    assert complaints(project) != []
    update(project)
    assert complaints(project) == []


def test_the_mean_over_docs_has_bounds_of_its_own(project: Path) -> None:
    (project / "docs/old.md").write_text("One, two, three; four. Five, six, seven.\n")
    assert means(project) == {"words": 3.4, "commas": 1.7}  # three sentences with clean.md: 10 words, 5 commas
    assert "docs/ has 1.7 commas per sentence, 1.2 are allowed." in complaints(project)
    update(project)
    assert Allowance.read(project / ALLOWED).means == {"commas": 1.7}
    (project / "docs/old.md").write_text("One, two, three; four.\n")
    assert any("1.5 commas" in line for line in complaints(project))
