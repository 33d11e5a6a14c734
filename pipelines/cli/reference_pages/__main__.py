"""`python -m pipelines.cli.reference_pages [--check] [FOLDER]`: write the reference pages, or list outdated ones."""

import argparse
import sys
from pathlib import Path

from pipelines.cli.reference_pages.benchmark_page import benchmark_page
from pipelines.cli.reference_pages.command_page import command_page
from pipelines.cli.reference_pages.fidelity_page import fidelity_page
from pipelines.cli.reference_pages.recipe_page import recipe_page

PAGES = {
    "benchmarks.md": benchmark_page,
    "cli.md": command_page,
    "fidelity.md": fidelity_page,
    "recipe.md": recipe_page,
}


def main(arguments: list[str]) -> int:
    """Write the pages. With --check, only compare them, and return 1 if one differs."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.cli.reference_pages", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which pages differ from the code")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/reference"))
    given = parser.parse_args(arguments)
    old = []
    for name, write in PAGES.items():
        path, text = given.folder / name, write()
        if given.check and (not path.exists() or path.read_text() != text):
            old.append(str(path))
        elif not given.check:
            given.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if old:
        print(f"Differs from the code: {', '.join(old)}. Run `make compile`.", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
