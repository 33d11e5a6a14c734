"""A process that is forked from a warm one is what a new interpreter would be."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from mantis.processes import die_with_parent
from tests.helpers.paths import ROOT
from tests.helpers.tell_about_process import AGAIN
from tests.helpers.waiting import HANG_SECONDS
from tests.helpers.warm_processes import SET_BY_IMPORTS, warm_starts

pytestmark = pytest.mark.new_interpreter  # each test says itself which one it starts


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make test` sets it. With more threads every process is a new interpreter."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def both(*arguments: str, **settings: Any) -> "list[subprocess.CompletedProcess[str]]":
    """A new interpreter and a fork, with the same arguments."""
    run = partial(subprocess.run, [*AGAIN, *arguments], input="a question", capture_output=True, text=True, **settings)
    new = run()
    with warm_starts():
        return [new, run()]


def said_by(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return said


@pytest.mark.parametrize(
    "changed", [{"PYTHONUNBUFFERED": ""}, {"start_new_session": True}, {"PYTHONUNBUFFERED": "1"}, {"TMPDIR": "/var"}]
)
def test_a_fork_is_what_a_new_interpreter_is(tmp_path: Path, changed: dict[str, Any]) -> None:
    variables = {name: value for name, value in changed.items() if name.isupper()}
    settings = {name: value for name, value in changed.items() if name not in variables}
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # PYTHONPATH may not be set
    new, fork = both("fail", "an argument", cwd=tmp_path, env=os.environ | {"MANTIS_LOG": "y"} | variables, **settings)
    assert (new.returncode, new.stderr) == (fork.returncode, fork.stderr) == (3, "an error\n")
    is_new, is_fork = said_by(new), said_by(fork)
    assert not is_new.pop("forked")
    assert is_fork.pop("forked")
    # The kernel, not Python, names the interpreter; a virtual environment's may be a link.
    assert is_new["shown"][1:] == is_fork["shown"][1:]
    assert Path(is_new["program"].pop(0)).samefile(is_fork["program"].pop(0))
    assert is_new | {"shown": []} == is_fork | {"shown": []}
    assert is_fork["parent"] == os.getpid()
    assert is_fork["was asked"] == "a question"
    assert is_fork["folder"] == str(tmp_path)


@pytest.mark.parametrize(
    ("end", "status"), [("raise_error", 1), ("interrupt", -2), ("give_reason", 1), ("kill", -9), ("fail", 3)]
)
def test_it_ends_in_the_same_way(end: str, status: int) -> None:
    new, fork = both(end)
    assert (new.returncode, fork.returncode) == (status, status)
    assert new.stderr.splitlines()[-1] == fork.stderr.splitlines()[-1]
    assert said_by(new)["program"] == said_by(fork)["program"]


def test_what_a_test_has_imported_keeps_no_process_from_being_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow and torch set variables when they are imported. The environment of a process may be older, or newer."""
    older = dict(os.environ)
    for name in SET_BY_IMPORTS:
        monkeypatch.setenv(name, "set by a library")
    monkeypatch.setenv("HF_TOKEN", "of a test")
    for environment in (older, older | {name: os.environ[name] for name in SET_BY_IMPORTS}):
        _, fork = both("fail", env=environment)
        assert said_by(fork)["forked"]


def test_its_child_is_a_fork_too_and_its_own() -> None:
    with warm_starts():
        done = subprocess.run([*AGAIN, "have_child"], input="", capture_output=True, text=True)
    told = json.loads(done.stdout.splitlines()[1])
    assert (told["status"], told["child"]["forked"], told["child"]["parent"]) == (3, True, told["own"])


def test_a_child_that_dies_with_its_parent_does_so(tmp_path: Path) -> None:
    with warm_starts():
        parent = subprocess.Popen(
            [*AGAIN, "wait_for_child"], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            preexec_fn=partial(die_with_parent, signal.SIGKILL),
        )  # fmt: skip
    until = time.monotonic() + HANG_SECONDS
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        assert parent.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    family = psutil.Process(parent.pid).children(recursive=True)
    assert int((tmp_path / "child").read_text()) in [one.pid for one in family]
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    assert psutil.wait_procs(family, timeout=HANG_SECONDS)[1] == [], "the child and the sources of both"


@pytest.mark.parametrize(
    "changed",
    [
        {"env": os.environ | {"OMP_NUM_THREADS": "1", "HF_TOKEN": "none"}},
        {"env": os.environ | {"OMP_NUM_THREADS": "2"}},
        {"env": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "/nowhere:" + str(Path.cwd())}},
        {"preexec_fn": lambda: None},
        {"pass_fds": [0]},
        {"umask": 0o77},
    ],
    ids=["a library's variable", "threads", "path", "a function of the test", "a file", "umask"],
)
def test_what_a_fork_cannot_do_alike_is_a_new_interpreter(changed: dict[str, Any]) -> None:
    _, other = both("fail", **changed)
    assert other.returncode == 3
    assert not said_by(other)["forked"]


def test_another_way_to_start_python_is_a_new_interpreter() -> None:
    code = "import sys; print('torch' in sys.modules)"
    with warm_starts():
        for command in (["-c", code], ["-X", "dev", "-c", code], ["-c", code, "-m", AGAIN[-1]]):
            done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
            assert done.stdout == "False\n"
