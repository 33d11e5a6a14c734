"""Log lines: what they hold in each format, who else's handlers and levels stay, and that stdout is data alone."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mantis.errors import ConfigError
from mantis.logging import configure, message_of, name_step

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
logger = logging.getLogger("mantis.example")


@pytest.fixture(autouse=True)
def without_context(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MANTIS_LOG", "MANTIS_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines on stderr since the last call; stdout is empty."""

    def read() -> list[str]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return read


def test_a_line_has_time_level_rank_run_and_step(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    configure()
    logger.info("%d of %d", 1, 2)
    name_step("demo-1a", "train")
    monkeypatch.setenv("RANK", "3")
    logger.warning("late")
    bare, full = lines()
    assert re.fullmatch(rf"{TIME} INFO 1 of 2", bare)
    assert re.fullmatch(rf"{TIME} WARNING \[rank 3, run demo-1a, step train\] late", full)


def test_a_line_for_a_terminal_is_short_and_names_the_level_of_a_warning(lines: Any) -> None:
    configure(short=True)
    name_step("demo-1a", "train")
    logger.info("fine")
    logger.warning("late")
    fine, late = lines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d train: fine", fine)
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING train: late", late)


@pytest.mark.parametrize("short", [False, True])
def test_json_lines_hold_every_field(lines: Any, monkeypatch: pytest.MonkeyPatch, short: Any) -> None:
    monkeypatch.setenv("MANTIS_LOG", "json")
    configure(short=short)
    logger.info("two\nlines of %s", "ü")
    name_step("demo-1a", "train")
    monkeypatch.setenv("RANK", "3")
    logger.error("late")
    first, second = (json.loads(line) for line in lines())
    assert re.fullmatch(TIME, first.pop("time"))
    assert re.fullmatch(TIME, second.pop("time"))
    common = {"logger": "mantis.example"}
    assert first == common | {"level": "INFO", "rank": None, "run": None, "step": None, "message": "two\nlines of ü"}
    assert second == common | {"level": "ERROR", "rank": 3, "run": "demo-1a", "step": "train", "message": "late"}


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_comes_with_its_traceback(lines: Any, monkeypatch: pytest.MonkeyPatch, form: Any) -> None:
    monkeypatch.setenv("MANTIS_LOG", form)
    configure()
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        logger.error("This rank failed", exc_info=error)
    said = lines()
    if form == "json":
        (said,) = ([json.loads(line)["message"], *json.loads(line)["exception"].splitlines()] for line in said)
    assert said[0].endswith("This rank failed")
    assert said[1] == "Traceback (most recent call last):"
    assert said[-1] == "ZeroDivisionError: division by zero"


def test_configured_twice_a_line_comes_once_in_the_last_format(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    configure()
    monkeypatch.setenv("MANTIS_LOG", "json")
    configure()
    logger.info("once")
    (line,) = lines()
    assert json.loads(line)["message"] == "once"


def test_other_libraries_keep_their_levels_and_handlers_and_a_basic_handler_goes(lines: Any) -> None:
    class Recorder(logging.StreamHandler[Any]):
        """A host program's own handler."""

    root, other = logging.getLogger(), logging.getLogger("somebody.else")
    level = root.level
    basic, recorder = logging.StreamHandler[Any](sys.stdout), Recorder(sys.stdout)
    root.addHandler(basic)  # as KFP's executor adds it
    other.addHandler(recorder)
    other.setLevel(logging.ERROR)
    configure()
    other.warning("quiet")
    assert root.level == level
    assert basic not in root.handlers
    assert other.handlers == [recorder]
    other.handlers.clear()
    other.setLevel(logging.NOTSET)
    assert lines() == []


def test_the_level_comes_from_the_environment(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANTIS_LOG_LEVEL", "warning")
    configure()
    logger.info("quiet")
    logger.warning("loud")
    (line,) = lines()
    assert line.endswith("WARNING loud")


@pytest.mark.parametrize(("name", "remedy"), [("MANTIS_LOG", "text, json"), ("MANTIS_LOG_LEVEL", "DEBUG, INFO")])
def test_an_unknown_value_is_an_error(monkeypatch: pytest.MonkeyPatch, name: Any, remedy: Any) -> None:
    monkeypatch.setenv(name, "loud")
    with pytest.raises(ConfigError, match=rf"{name} = 'loud' is unknown\. Set it to {remedy}"):
        configure()


def test_without_configure_only_warnings_are_shown() -> None:
    """A program that imports these packages decides about its log itself."""
    code = "import logging, mantis.runs.step_runner; assert not logging.getLogger().handlers; "
    code += "log = logging.getLogger('mantis.example'); log.info('quiet'); log.warning('loud')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "loud\n")


def test_the_message_of_any_line() -> None:
    assert message_of('    {"level": "INFO", "message": "a \\"b\\""}') == 'a "b"'
    assert message_of("plain") == "plain"
    for broken in ('{"level": "INFO"}', "{not json"):
        assert message_of(broken) == broken
