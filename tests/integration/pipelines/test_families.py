"""Every family learns in the demo: `mantis run demo --set model.family=...`."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mantis.models.registry import family_names

BETTER_THAN_CHANCE = 0.25  # the accuracy
SURELY_BETTER = 0.15  # the lower end of its interval
DEFAULT = "llava-clip"  # the demo's own family
LONGEST = 1.5  # of any family's demo, in units of the default one's processor seconds


class Demo(NamedTuple):
    """A finished demo: its summary, and the processor seconds of all its processes."""

    summary: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Demo]:
    """Run the demo of a family, the first time that it is asked for."""

    @cache
    def run(family: str) -> Demo:
        store = tmp_path_factory.mktemp(family)
        command = [sys.executable, "-m", "pipelines.cli", "run", "demo", "--json", "--store", store.as_uri()]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*command, "--set", f"model.family={family}"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return Demo(
            summary=json.loads(Path(done.stdout.splitlines()[-1]).read_text()),
            seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        )

    return run


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", family_names())
def test_it_learns_to_compare(family: str, demo: Callable[[str], Demo]) -> None:
    """Same or different, at least 25 points above chance, and no better than chance on other or no pictures."""
    compare = next(row for row in demo(family).summary["scores"] if row["skill"] == "compare")
    assert compare["accuracy"] >= compare["chance"] + BETTER_THAN_CHANCE
    assert compare["low"] > compare["chance"] + SURELY_BETTER
    for control in ("blind", "shuffled"):
        assert compare[control] < compare["chance"] + SURELY_BETTER / 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", [name for name in family_names() if name != DEFAULT])
def test_it_takes_little_more_time_than_the_default_family(family: str, demo: Callable[[str], Demo]) -> None:
    """In seconds of processors, since other work on the machine stretches the others."""
    assert demo(family).seconds <= LONGEST * demo(DEFAULT).seconds
