"""Run `python -m tests.mutants [PART...]`: change the code of a part at one place, and see whether its tests notice.

mutmut writes a copy of the code that holds every mutant of each function, and forks one process for a mutant from a
process that has imported the tests. It changes the code inside of functions, not constants of modules.
"""

import argparse
import ast
import difflib
import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scipy import stats

from tests.helpers.paths import ROOT

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "mutants"
LEFT_OUT = {"build", "pyproject.toml", "mutants"}  # of the top folder's entries
CODE = ["components", "mantis"]
TESTED = ["benchmarks", "docs", "manifests", "pipelines", "docker", "README.md", "CHANGELOG.md", "Makefile"]
# Calls of mutmut before its tests, so that the mutants' names are there to draw from.
GENERATE = (
    "from mutmut import __main__ as m; m.makedirs('mutants', exist_ok=True); m.copy_src_dir();"
    "m.copy_also_copy_files(); m.setup_source_paths(); m.create_mutants({processes})"
)
NOTICED = {1, 3, 24, -24, 36, 152, 255, -11, -9}  # exit codes: a test failed, time was up, the process died
LATE = {24, -24, 36, 152, 255}  # of these: time was up
UNTRIED = {None, 2, 34}


def main() -> None:
    """Try the parts one after the other; exit with 1 if a part's score is below its floor."""
    table = tomllib.loads((HERE / "parts.toml").read_text())
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(table['parts'])}; all if none is given"
    )
    parser.add_argument("--sample", type=int, help="mutants to try, instead of the number of parts.toml")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="mutants at the same time")
    parser.add_argument("--seed", type=int, default=table["settings"]["seed"], help="of the sample")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(table["parts"]):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(table['parts'])}")
    equivalent = tomllib.loads((HERE / "equivalent.toml").read_text())
    low = []
    for name in given.parts or table["parts"]:
        part = table["parts"][name]
        score = try_part(name, part, table["settings"] | vars(given), equivalent, given.sample or part["sample"])
        if score < part.get("floor", 0.0):
            low.append(f"{name} below {part['floor']:.0%}")
    if low:
        sys.exit(", ".join(low))


def try_part(
    name: str, part: dict[str, Any], settings: dict[str, Any], equivalent: dict[str, list[dict[str, Any]]], size: int
) -> float:
    """Print the score of a part and its survivors. Returns the score."""
    began = time.monotonic()
    work = _workplace(name, part, settings)
    _generate(work, settings["processes"])
    codes = _exit_codes(work)
    known = _equivalent(work, codes, equivalent["mutant"]) | _of_a_kind(work, codes, equivalent["kind"])
    counted = sorted(codes.keys() - known)
    drawn = random.Random(settings["seed"]).sample(counted, min(size, len(counted)))
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(settings["processes"]), *drawn]
    with (work / "run.log").open("w") as log:
        kept = {"MANTIS_TEST_KEPT": str(work / "kept")} if part.get("keeps_trainings_data") else {}
        subprocess.run(command, cwd=work, env=_environment() | kept, stdout=log, stderr=log, check=False)
    codes = _exit_codes(work)
    if untried := [mutant for mutant in drawn if codes[mutant] in UNTRIED]:
        sys.exit(f"{name}: {len(untried)} of {len(drawn)} mutants were not tried; {work / 'run.log'} says why")
    survivors = sorted(mutant for mutant in drawn if codes[mutant] not in NOTICED)
    noticed = len(drawn) - len(survivors)
    low, high = stats.binomtest(noticed, len(drawn)).proportion_ci(method="wilson")
    late = sum(codes[mutant] in LATE for mutant in drawn)
    interval = "all of them" if len(drawn) == len(counted) else f"95 % interval {low:.0%} to {high:.0%}"
    for mutant in survivors:
        print(shown(work, mutant))
    print(
        f"{name}: {noticed / len(drawn):.1%} of {len(drawn)} mutants were noticed ({late} by their time), {interval}; "
        f"{len(counted)} mutants, {len(known)} more are equivalent, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return noticed / len(drawn)


def _workplace(name: str, part: dict[str, Any], settings: dict[str, Any]) -> Path:
    """A folder with links to the project and mutmut's settings for the part."""
    work = BUILD / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name not in LEFT_OUT and not path.name.startswith("."):
            (work / path.name).symlink_to(path)
    wanted = {
        "source_paths": CODE,
        "only_mutate": part["modules"],
        "also_copy": TESTED,
        "do_not_mutate_patterns": settings["people_read"],
        "pytest_add_cli_args": ["-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"],
        "pytest_add_cli_args_test_selection": part["tests"],
        "process_isolation": "fork",
        "timeout_constant": settings["spare_seconds"],
        "timeout_multiplier": settings["slower"],
        "track_dependencies": False,
        "use_git_change_detection": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in wanted.items()]  # JSON's words are TOML's
    project = (ROOT / "pyproject.toml").read_text()
    (work / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]))
    return work


def _environment() -> dict[str, str]:
    """The variables for mutmut: a path to the project would let the tests import the code without mutants."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


def _generate(work: Path, processes: int) -> None:
    """Write the mutants of the part into the workplace."""
    command = [sys.executable, "-c", GENERATE.format(processes=processes)]
    done = subprocess.run(command, cwd=work, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def _exit_codes(work: Path) -> dict[str, int | None]:
    """For each mutant's name: how its tests ended, None before that."""
    found: dict[str, int | None] = {}
    for path in sorted((work / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def _equivalent(work: Path, names: Iterable[str], entries: list[dict[str, str]]) -> set[str]:
    """The names of the mutants that the entries describe. An entry without a mutant ends the program."""
    functions = {entry["function"] for entry in entries}
    changes: dict[tuple[str, str, str], set[str]] = {}
    for name in names:
        if function_of(name) in functions:
            changes.setdefault((function_of(name), *_change(work, name)), set()).add(name)
    modules = {name.rpartition(".")[0] for name in names}
    wanted = [entry for entry in entries if any(entry["function"].startswith(f"{module}.") for module in modules)]
    if lost := [entry for entry in wanted if (entry["function"], entry["was"], entry["becomes"]) not in changes]:
        sys.exit(f"equivalent.toml: no mutant is like {lost[0]['function']}: {lost[0]['was']} -> {lost[0]['becomes']}")
    return set().union(*(changes[entry["function"], entry["was"], entry["becomes"]] for entry in wanted))


def _of_a_kind(work: Path, names: Iterable[str], kinds: list[dict[str, Any]]) -> set[str]:
    """The names of the mutants that change a line as one of the kinds does."""
    return {name for name in names if any(is_of_kind(*_change(work, name), kind) for kind in kinds)}


def is_of_kind(was: str, becomes: str, kind: dict[str, Any]) -> bool:
    """Whether a kind's pattern matches `was`, and one of its templates gives `becomes`."""
    match = re.fullmatch(kind["was"], was)
    return match is not None and becomes in {match.expand(template) for template in kind["becomes"]}


def function_of(mutant: str) -> str:
    """For example components.training.lr_schedule.learning_rate_factors, or module.Class.method."""
    module, _, mangled = mutant.rpartition(".")
    plain = mangled.rpartition("__mutmut_")[0]
    return f"{module}.{plain.removeprefix('x_')}" if plain.startswith("x_") else module + plain[1:].replace("ǁ", ".")


def _change(work: Path, mutant: str) -> tuple[str, str]:
    """The lines that differ, before and after, without their indentation."""
    module, _, name = mutant.rpartition(".")
    place = work / "mutants" / Path(*module.split("."))
    written = _functions(place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__init__.py")
    original = written[f"{name.rpartition('__mutmut_')[0]}__mutmut_orig"]
    lines = list(difflib.unified_diff(original, written[name], n=0, lineterm=""))[2:]
    was, becomes = ("\n".join(line[1:] for line in lines if line.startswith(sign)) for sign in "-+")
    return was, becomes


@functools.cache
def _functions(path: Path) -> dict[str, list[str]]:
    """The stripped lines of each function and method in a file that mutmut wrote, by the name that it has there.

    mutmut reads the whole file again for each difference, which takes minutes for a part.
    """
    text = path.read_text()
    lines, tree = text.splitlines(), ast.parse(text)
    scopes: list[ast.Module | ast.ClassDef] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    functions = [
        node for scope in scopes for node in scope.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {
        node.name: [line.strip().replace(node.name, "") for line in lines[node.lineno - 1 : node.end_lineno]]
        for node in functions
    }


def shown(work: Path, mutant: str) -> str:
    """The mutant's function, and the lines that differ."""
    was, becomes = _change(work, mutant)
    lines = [f"    - {line}" for line in was.splitlines()] + [f"    + {line}" for line in becomes.splitlines()]
    return "\n".join([function_of(mutant), *lines])


if __name__ == "__main__":
    main()
