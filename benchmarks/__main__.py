"""`python -m benchmarks [NAME...] [--full] [--json FILE]`: measure rows, and report whether each meets its goal."""

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.rows import GPU_ROWS, ROWS, Measure, Row
from mantis.errors import MantisError
from mantis.logging import configure


def main(arguments: list[str] | None = None) -> int:
    """Measure the named rows, or all; the exit code is 1 if a row misses its goal."""
    options = _parser().parse_args(arguments)
    configure(short=True)
    if options.list:
        print("\n".join(ROWS))
        return 0
    known = ROWS | GPU_ROWS
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        print(f"No row {', '.join(unknown)}. Rows: {', '.join(known)}.", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in options.names or ROWS:
        module, function = known[name]
        measure: Measure = getattr(importlib.import_module(module), function)
        try:
            rows.append(measure(options.full))
        except MantisError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        print(_line(rows[-1]), flush=True)
        if options.json:  # after every row, so that a failure of the next row loses nothing
            options.json.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")
    return 0 if all(row.met for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to measure; all if omitted")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--full", action="store_true", help="use the sizes of the stated goals; takes longer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE as JSON")
    return parser


def _line(row: Row) -> str:
    peer = "no peer" if row.peer is None else f"peer {row.peer:.4g}"
    verdict = "met" if row.met else "NOT MET"
    return f"{row.name}: ours {row.ours:.4g}, {peer} {row.unit}; ratio {row.ratio:.3g}, goal {row.goal}: {verdict}"


if __name__ == "__main__":
    sys.exit(main())
