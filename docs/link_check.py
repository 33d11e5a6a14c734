"""Check the links between the project's Markdown pages: the file is there, and so is the heading behind a `#`.

    python docs/link_check.py

Links to other hosts are not followed. This file imports nothing but the standard library.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", "manifests/**/*.md", "benchmarks/**/*.md", ".github/**/*.md")
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)


def broken(root: Path) -> list[str]:
    """One line per link that leads nowhere."""
    pages = sorted({page for pattern in PAGES for page in root.glob(pattern)})
    return [
        f"{page.relative_to(root)}: {target} {reason}"
        for page in pages
        for target in _targets(page.read_text(encoding="utf-8"))
        if (reason := _reason(root, page, target))
    ]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes from the headings of a page."""
    found: dict[str, int] = {}
    names = set()
    for match in HEADING.finditer(_without_code(text)):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).lower()).replace(" ", "-")
        count = found.get(slug, 0)
        names.add(f"{slug}-{count}" if count else slug)
        found[slug] = count + 1
    return names


def _targets(text: str) -> Iterator[str]:
    spoken = re.sub(r"`[^`\n]*`", "", _without_code(text))
    for match in LINK.finditer(spoken):
        if not re.match(r"[a-z][a-z0-9+.-]*:", match[1]):
            yield unquote(match[1])


def _reason(root: Path, page: Path, target: str) -> str:
    """Why a link leads nowhere; nothing where it leads somewhere."""
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.is_relative_to(root.resolve()):
        return "leaves the repository"
    if not path.exists():
        return "does not exist"
    if anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
        return "has no such heading"
    return ""


def _without_code(text: str) -> str:
    return re.sub(r"^(\s*)(```|~~~).*?^\s*\2\s*$", "", text, flags=re.DOTALL | re.MULTILINE)


def main() -> int:
    """The exit status."""
    found = broken(ROOT)
    print("\n".join(found) or "every link between pages leads somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
