"""Check the project's English: sentence length, commas, and words that make a text a riddle.

    python docs/prose_check.py             check everything, exit 1 on a problem
    python docs/prose_check.py --show FILE print the problems of some files, allowed ones included
    python docs/prose_check.py --update    lower the counts in docs/prose_allowed.toml after a text became better

The check reads Markdown pages, and in Python files the docstrings, help texts, descriptions and error messages. It
ignores code, tables, headings and the targets of links. A generated page is checked for words alone.

docs/prose_allowed.toml lists the files that still have problems. A count there may only go down: more problems fail,
and so does an entry that is higher than the truth. This file imports nothing but the standard library, so that
pre-commit can run it without the project.
"""

import argparse
import ast
import inspect
import math
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = Path("docs/prose_allowed.toml")
MARKDOWN = ("*.md", "docs/**/*.md", "manifests/**/*.md", "benchmarks/**/*.md", ".github/**/*.md")
PYTHON = tuple(f"{folder}/**/*.py" for folder in ("mantis", "components", "pipelines", "benchmarks", "docs"))
GENERATED = ("docs/reference/cli.md", "docs/reference/recipe.md")

MAX_WORDS = 30  # of one sentence
MAX_MEAN_WORDS = 18.0  # of the sentences under docs/
MAX_MEAN_COMMAS = 1.2  # commas and semicolons per sentence under docs/

# Each pattern with a remedy. Patterns see one sentence, in lower case, without code and quotations.
BANNED: tuple[tuple[str, str], ...] = (
    (r"\bwhoever\b", "name the person or the process"),
    (r"\bwhat(?:ever)? (?:is|are|was|were)\b(?!.*\?$)", "name the thing; `what is` may only begin a question"),
    # Not "which rows of which subsets": a question may ask for both.
    (r"(?:^|(?<!which )\b\w+ |[^\w ] ?)of which\b", "begin a new sentence"),
    (r"\bso (?:many|much) (?!(?:that|as)\b)", "give the number or its name"),
    (r"\banew\b", "say `again`"),
    (r"\b(?:is|are|was|were|be|been|being) told\b", "say who reports it: `the log names ...`"),
    (r"\bof (?:a person's|one's)\b", "say `your`"),
    (r"\b(?:thereof|therein|whereby|wherein|thereby)\b", "begin a new sentence"),
    (r"\bfor ever\b", "say `permanently`"),
    (r"\bsays so\b", "say what the text states"),
)

SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Attributes|Note|Example|Examples):$")
ENTRY = re.compile(r"^\s+[`*]*[A-Za-z_][\w.\[\], |*`]*:\s")
ITEM = re.compile(r"^(\s*)(?:[-*+]|\d+[.)])\s+")
FENCE = re.compile(r"^\s*(```|~~~)")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|al|approx|no|p)\.$", re.IGNORECASE)
END = re.compile(r"(?<=[.!?])[\"')\]*_”]*\s+(?=[\"'(\[*_“]*[A-Z0-9])")
KEYWORDS = frozenset({"help", "short_help", "epilog", "description", "remedy"})


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A sentence that breaks a rule; `line` counts from 1."""

    line: int
    what: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence without markup; `CODE` stands for a code span; `line` is that of its paragraph."""

    line: int
    text: str

    @property
    def words(self) -> int:
        """Tokens that hold a letter or a digit."""
        return sum(any(character.isalnum() for character in token) for token in self.text.split())

    @property
    def commas(self) -> int:
        """Commas and semicolons, without those inside of numbers."""
        return len(re.findall(r"[,;](?!\d)", self.text))


def sentences(text: str, *, first_line: int = 1) -> list[Sentence]:
    """The sentences of a Markdown text or docstring. A list item ends a sentence, with or without a full stop."""
    return [
        Sentence(line=first_line + line, text=part)
        for line, block in _blocks(text)
        for part in _split(_plain(block))
        if any(character.isalpha() for character in part)
    ]


def problems(found: Iterable[Sentence], *, words_only: bool = False) -> Iterator[Problem]:
    """The rules that each sentence breaks; `words_only` leaves its length out."""
    for sentence in found:
        if sentence.words > MAX_WORDS and not words_only:
            yield Problem(
                line=sentence.line, what=f"{sentence.words} words, at most {MAX_WORDS}", sentence=sentence.text
            )
        spoken = re.sub(r"[\"“][^\"”]*[\"”]", "QUOTE", sentence.text).lower()
        for pattern, remedy in BANNED:
            match = re.search(pattern, spoken)
            if match:
                yield Problem(line=sentence.line, what=f"`{match[0].strip()}`: {remedy}", sentence=sentence.text)


def texts_of_python(source: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of every docstring, help text, description, remedy and error message of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[0] if node.body else None
            if (
                isinstance(body, ast.Expr)
                and isinstance(body.value, ast.Constant)
                and isinstance(body.value.value, str)
            ):
                yield body.lineno, inspect.cleandoc(body.value.value)
        elif isinstance(node, ast.Call):
            spoken = [word.value for word in node.keywords if word.arg in KEYWORDS]
            if _name(node.func).endswith("Error"):
                spoken += node.args[:1]
            for value in spoken:
                text = _literal(value)
                if text is not None:
                    yield value.lineno, text


def check_file(path: Path, name: str) -> list[Problem]:
    """The problems of one file in the order of its lines; `name` is its path below the repository."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        found = [s for line, part in texts_of_python(text) for s in sentences(part, first_line=line)]
    else:
        found = sentences(text)
    return sorted(problems(found, words_only=name in GENERATED), key=lambda problem: problem.line)


def files(root: Path) -> dict[str, Path]:
    """Every file that is checked, by its path below `root`."""
    paths = {path for pattern in (*MARKDOWN, *PYTHON) for path in root.glob(pattern)}
    return {path.relative_to(root).as_posix(): path for path in sorted(paths)}


def means(root: Path) -> dict[str, float]:
    """Words, and commas with semicolons, per sentence of the hand-written pages under docs/, rounded up to 0.1."""
    pages = [path for name, path in files(root).items() if name.startswith("docs/") and path.suffix == ".md"]
    found = [
        sentence
        for path in pages
        if path.relative_to(root).as_posix() not in GENERATED
        for sentence in sentences(path.read_text(encoding="utf-8"))
    ]
    count = max(len(found), 1)
    return {
        "words": _rounded_up(sum(sentence.words for sentence in found) / count),
        "commas": _rounded_up(sum(sentence.commas for sentence in found) / count),
    }


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What docs/prose_allowed.toml holds: problems per file, and means of docs/ above their bound."""

    problems: dict[str, int]
    means: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> "Allowance":
        """No file allows nothing."""
        raw = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return cls(problems=raw.get("problems", {}), means=raw.get("means", {}))

    @classmethod
    def needed(cls, root: Path) -> "Allowance":
        """The smallest allowance with which `root` passes."""
        counts = {name: len(check_file(path, name)) for name, path in files(root).items()}
        bounds = {"words": MAX_MEAN_WORDS, "commas": MAX_MEAN_COMMAS}
        return cls(
            problems={name: count for name, count in counts.items() if count},
            means={name: value for name, value in means(root).items() if value > bounds[name]},
        )

    def write(self, path: Path) -> None:
        """As TOML, sorted by name."""
        lines = ["# Texts that are not clean yet. Counts only go down: `python docs/prose_check.py --update`.", ""]
        lines += [
            "[means]  # of the sentences under docs/",
            *(f"{name} = {self.means[name]}" for name in sorted(self.means)),
        ]
        lines += ["", "[problems]", *(f'"{name}" = {self.problems[name]}' for name in sorted(self.problems))]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def complaints(root: Path) -> list[str]:
    """One line per broken rule and per entry of the allowance that is higher than the truth."""
    allowed, needed = Allowance.read(root / ALLOWED), Allowance.needed(root)
    lines: list[str] = []
    for name in sorted(allowed.problems.keys() | needed.problems.keys()):
        may, has = allowed.problems.get(name, 0), needed.problems.get(name, 0)
        if has > may:
            lines += [_shown(name, problem) for problem in check_file(root / name, name)]
            lines.append(f"{name}: {has} problems, {may} are allowed.")
        elif has < may:
            lines.append(f"{name}: {has} problems, {ALLOWED} still allows {may}. Run it with --update.")
    for name in sorted(allowed.means.keys() | needed.means.keys()):
        bound = {"words": MAX_MEAN_WORDS, "commas": MAX_MEAN_COMMAS}[name]
        mean_may, mean_has = allowed.means.get(name, bound), needed.means.get(name, bound)
        if mean_has > mean_may:
            lines.append(f"docs/ has {mean_has} {name} per sentence, {mean_may} are allowed.")
        elif mean_has < mean_may:
            lines.append(
                f"docs/ has {mean_has} {name} per sentence, {ALLOWED} allows {mean_may}. Run it with --update."
            )
    return lines


def update(root: Path) -> None:
    """Write the smallest allowance.

    Raises:
        SystemExit: the problems are more than those allowed now; a moved file alone does not raise their number.
    """
    path = root / ALLOWED
    needed, allowed = Allowance.needed(root), Allowance.read(path)
    more = sum(needed.problems.values()) > sum(allowed.problems.values())
    more |= any(value > allowed.means.get(name, 0) for name, value in needed.means.items())
    if path.exists() and more:
        raise SystemExit(f"The texts became worse. Correct them, or raise {ALLOWED} by hand and say why in the commit.")
    needed.write(path)


def main(arguments: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="Check sentence length, commas and words of the project's English.")
    parser.add_argument("--update", action="store_true", help="Lower the counts in the allow file.")
    parser.add_argument("--show", nargs="+", metavar="FILE", help="Print every problem of these files.")
    chosen = parser.parse_args(arguments)
    if chosen.show:
        for given in chosen.show:
            path = Path(given).resolve()
            name = path.relative_to(ROOT).as_posix()
            print("\n".join(_shown(name, problem) for problem in check_file(path, name)) or f"{name}: no problem")
        return 0
    if chosen.update:
        update(ROOT)
    found = complaints(ROOT)
    left = Counter(Allowance.read(ROOT / ALLOWED).problems).total()
    mean = means(ROOT)
    print("\n".join([*found, f"docs/: {mean['words']} words and {mean['commas']} commas per sentence on average"]))
    print(f"{left} problems are allowed in files that are not clean yet" if left else "every text is clean")
    return 1 if found else 0


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """(line from 0, text) of each paragraph and list item, without code, tables, headings and comments."""
    text = re.sub(r"<!--.*?-->", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    begun, block, indent = 0, "", 0
    fence, blank, code = "", True, False
    for number, line in enumerate(text.splitlines()):
        opened = FENCE.match(line)
        if opened and (not fence or opened[1] == fence):
            fence = "" if fence else opened[1]
        width = len(line) - len(line.lstrip())
        item = ITEM.match(line)
        code = bool(line.strip()) and width >= indent + 4 and (blank or code) and not item
        ends = not line.strip() or bool(fence or opened or code or item)
        ends = ends or line.lstrip().startswith(("|", "#", ">")) or bool(SECTION.match(line) or ENTRY.match(line))
        if ends and block:
            yield begun, block
            block = ""
        blank = not line.strip()
        if blank or fence or opened or code or line.lstrip().startswith(("|", "#")) or SECTION.match(line):
            continue
        if item:
            indent = item.end()
        elif not width:
            indent = 0
        if not block:
            begun = number
        block = f"{block} {line[item.end() :] if item else line.strip().removeprefix('> ')}".strip()
    if block:
        yield begun, block


def _plain(block: str) -> str:
    """Without markup; each code span and each address is one word."""
    block = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "CODE", block)
    block = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", block)
    block = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", block)
    block = re.sub(r"<?\b[a-z][a-z0-9+]*://\S*[^\s.,;:)>]>?", "URL", block)
    return re.sub(r"\s+", " ", re.sub(r"</?[a-z][^>]*>", "", block).replace("**", "")).strip()


def _split(text: str) -> Iterator[str]:
    begin = 0
    for match in END.finditer(text):
        if not ABBREVIATION.search(text[begin : match.start()]):
            yield text[begin : match.start()]
            begin = match.end()
    if text[begin:]:
        yield text[begin:]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _literal(node: ast.expr) -> str | None:
    """A string in the source, `CODE` in place of what an f-string puts in; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "CODE" for part in node.values)
    return None


def _rounded_up(value: float) -> float:
    return math.ceil(round(value * 10, 6)) / 10


def _shown(name: str, problem: Problem) -> str:
    short = problem.sentence if len(problem.sentence) <= 160 else problem.sentence[:157] + "..."
    return f"{name}:{problem.line}: {problem.what}: {short}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
