"""The data of mutation testing: parts whose modules and tests are there, and equivalent mutants with a reason."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.mutants.__main__ import CODE, HERE, NOTICED, UNTRIED, function_of, is_of_kind, shown

TABLE = tomllib.loads((HERE / "parts.toml").read_text())
EQUIVALENT = tomllib.loads((HERE / "equivalent.toml").read_text())["mutant"]
KINDS = tomllib.loads((HERE / "equivalent.toml").read_text())["kind"]
MODULES = [path.relative_to(ROOT).as_posix() for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]


def modules_of(part: str) -> set[str]:
    return {name for pattern in TABLE["parts"][part]["modules"] for name in fnmatch.filter(MODULES, pattern)}


@pytest.mark.parametrize("part", TABLE["parts"])
def test_a_part_has_modules_and_tests(part: str) -> None:
    wanted = TABLE["parts"][part]
    assert all(fnmatch.filter(MODULES, pattern) for pattern in wanted["modules"]), wanted["modules"]
    assert [place for place in wanted["tests"] if not (ROOT / place.removeprefix("--ignore=")).exists()] == []
    assert wanted["sample"] >= 20
    if wanted.get("keeps_trainings_data"):  # a mutant of another package could write the data that the next one reads
        assert all(name.startswith("components/training/") for name in modules_of(part))


def test_no_module_is_in_two_parts() -> None:
    every = [name for part in TABLE["parts"] for name in modules_of(part)]
    assert sorted(every) == sorted(set(every))


def test_an_equivalent_mutant_has_a_reason_and_a_place() -> None:
    dotted = {name.removesuffix(".py").replace("/", ".") for part in TABLE["parts"] for name in modules_of(part)}
    for entry in EQUIVALENT:
        assert entry.keys() == {"function", "was", "becomes", "reason"}
        assert any(entry["function"].startswith(f"{module}.") for module in dotted), entry["function"]
        assert entry["was"] != entry["becomes"]
        assert len(entry["reason"]) > 20
    places = [(entry["function"], entry["was"], entry["becomes"]) for entry in EQUIVALENT]
    assert len(places) == len(set(places))


def test_a_kind_of_equivalent_mutants_is_a_lost_guard_and_nothing_else() -> None:
    assert all(kind.keys() == {"was", "becomes", "reason"} and len(kind["reason"]) > 20 for kind in KINDS)
    (strict,) = KINDS
    line = "for a, b in zip(first, second, strict=True):"
    for guard in ("strict=False", "strict=None", ""):
        assert is_of_kind(line, line.replace("strict=True", guard), strict)
    assert not is_of_kind(line, "for a, b in zip(second, strict=True):", strict)
    assert not is_of_kind(line, "for a, b in zip(first, strict=False):", strict)
    assert not is_of_kind("decode(data, strict=True)", "decode(data, strict=False)", strict)
    assert not is_of_kind("zip(a, b, strict=False)", "zip(a, b, strict=True)", strict)


def test_texts_for_people_are_not_mutated() -> None:
    patterns = [re.compile(pattern) for pattern in TABLE["settings"]["people_read"]]
    for line in ('logger.warning("%s", name)', '    raise ConfigError(f"no")', '        remedy="Do it."'):
        assert any(pattern.search(line) for pattern in patterns)
    for line in ("raised = found + 1", "        return problem", "    problems = 1"):
        assert not any(pattern.search(line) for pattern in patterns)


@pytest.mark.parametrize(
    ("mutant", "function"),
    [
        ("mantis.hashing.x_fingerprint__mutmut_3", "mantis.hashing.fingerprint"),
        ("mantis.config.overrides.x__leaves__mutmut_12", "mantis.config.overrides._leaves"),
        ("mantis.store.local.xǁLocalStoreǁ_write__mutmut_1", "mantis.store.local.LocalStore._write"),
    ],
)
def test_a_mutant_s_function(mutant: str, function: str) -> None:
    assert function_of(mutant) == function


WRITTEN = """
def x_total__mutmut_orig(values):
    first = values[0]
    return sum(values, start=first)

def x_total__mutmut_1(values):
    first = values[1]
    return sum(values, start=first)

class Box:
    def xǁBoxǁget__mutmut_orig(self):
        if self.full:
            return self.value

    def xǁBoxǁget__mutmut_1(self, /):
        if not self.full:
            return self.value
"""


def test_a_mutant_is_shown_by_the_lines_that_differ(tmp_path: Path) -> None:
    (tmp_path / "mutants" / "mantis").mkdir(parents=True)
    (tmp_path / "mutants" / "mantis" / "boxes.py").write_text(WRITTEN)
    assert shown(tmp_path, "mantis.boxes.x_total__mutmut_1").splitlines() == [
        "mantis.boxes.total",
        "    - first = values[0]",
        "    + first = values[1]",
    ]
    assert shown(tmp_path, "mantis.boxes.xǁBoxǁget__mutmut_1").splitlines() == [
        "mantis.boxes.Box.get",
        "    - def (self):",
        "    - if self.full:",
        "    + def (self, /):",
        "    + if not self.full:",
    ]


def test_what_counts_as_noticed() -> None:
    assert not NOTICED & UNTRIED
    assert 1 in NOTICED  # a test failed
    assert not {0, 5, 33} & NOTICED  # all passed, or no test calls the function


def test_the_how_to_names_every_part() -> None:
    page = Path(ROOT / "CONTRIBUTING.md").read_text()
    assert [part for part in TABLE["parts"] if f"| {part} |" not in page] == []
