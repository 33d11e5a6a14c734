from pathlib import Path

from docs.link_check import ROOT, anchors, broken


def page(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_every_link_of_the_project_leads_somewhere() -> None:
    assert broken(ROOT) == []


def test_a_link_to_a_missing_file_or_heading_is_found(tmp_path: Path) -> None:
    page(tmp_path, "docs/a.md", "[b](b.md) [c](c.md) [here](#one) [there](b.md#two-words) [not](b.md#three)")
    page(tmp_path, "docs/b.md", "# Two words\n")
    assert broken(tmp_path) == [
        "docs/a.md: c.md does not exist",
        "docs/a.md: #one has no such heading",
        "docs/a.md: b.md#three has no such heading",
    ]


def test_a_link_out_of_the_repository_is_found(tmp_path: Path) -> None:
    page(tmp_path, "README.md", "[up](../other.md)")
    assert broken(tmp_path) == ["README.md: ../other.md leaves the repository"]


def test_other_hosts_and_code_are_not_followed(tmp_path: Path) -> None:
    page(tmp_path, "README.md", "[x](https://example.org/a.md) `[y](y.md)`\n\n```\n[z](z.md)\n```\n")
    assert broken(tmp_path) == []


def test_headings_become_anchors_as_on_github() -> None:
    assert anchors("# A `b` c!\n## Twice\n## Twice\n```\n# no\n```\n") == {"a-b-c", "twice", "twice-1"}
