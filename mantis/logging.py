"""Log lines: one format for all processes, with time, level, rank, run and step.

A module logs with `logging.getLogger(__name__)`. Only an entry point calls `configure`: a program that imports these
packages keeps its own handlers and levels.
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime

from mantis.errors import ConfigError

FORMAT = "MANTIS_LOG"
LEVEL = "MANTIS_LOG_LEVEL"
RUN = "MANTIS_RUN"
STEP = "MANTIS_STEP"
FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# `python -m` names the module that it runs `__main__`.
OURS = ("mantis", "components", "pipelines", "benchmarks", "__main__")


def configure(*, short: bool = False) -> None:
    """Send the log of this process to stderr. A second call replaces the format of the first.

    Args:
        short: lines for a person at a terminal: local time, step, message, and the level from WARNING on.

    Raises:
        ConfigError: MANTIS_LOG or MANTIS_LOG_LEVEL has an unknown value.
    """
    as_json = _choice(FORMAT, "text", FORMATS) == "json"
    level = _choice(LEVEL, "INFO", LEVELS)
    formatter = JsonFormatter() if as_json else ShortFormatter() if short else TextFormatter()
    root = logging.getLogger()
    # Remove what basicConfig has installed, such as KFP's handler: each line would appear twice. The exact type: a
    # subclass, such as a test's recorder, stays.
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler or isinstance(handler, _Stderr):
            root.removeHandler(handler)
    ours = _Stderr()
    ours.addFilter(add_context)
    ours.setFormatter(formatter)
    root.addHandler(ours)
    for name in OURS:  # the root's level decides for other libraries and stays as it is
        logging.getLogger(name).setLevel(level)


def name_step(run: str, step: str) -> None:
    """Name the run and the step in the log of this process and of its children."""
    os.environ[RUN], os.environ[STEP] = run, step


def add_context(record: logging.LogRecord) -> bool:
    """Add `rank` (int), `run` and `step` (str) to a record, each None if the environment has none."""
    rank = os.environ.get("RANK", "")
    record.__dict__["rank"] = int(rank) if rank.isdigit() else None
    record.__dict__["run"] = os.environ.get(RUN) or None
    record.__dict__["step"] = os.environ.get(STEP) or None
    return True


def message_of(line: str) -> str:
    """The message of a log line in JSON; any other line as it is."""
    if not line.lstrip().startswith("{"):
        return line
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError):
        return line


class TextFormatter(logging.Formatter):
    """`2026-01-31T09:00:00.123Z INFO [rank 1, run demo-1a, step train] message`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the base class
        """Format all but the traceback."""
        known = [f"{name} {value}" for name, value in _context(record).items() if value is not None]
        where = f"[{', '.join(known)}] " if known else ""
        return f"{_time(record)} {record.levelname} {where}{record.message}"


class ShortFormatter(logging.Formatter):
    """`09:00:00 train: message` or `09:00:00 WARNING train: message`, in local time."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the base class
        """Format all but the traceback."""
        level = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        step = _context(record)["step"]
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        return f"{clock} {level}{f'{step}: ' if step else ''}{record.message}"


class JsonFormatter(logging.Formatter):
    """One JSON object on one line. `rank`, `run` and `step` are null if there are none."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record. `exception` holds its traceback, if there is one."""
        line = {"time": _time(record), "level": record.levelname, "logger": record.name, **_context(record)}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the present `sys.stderr`, which a progress bar or a test may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _context(record: logging.LogRecord) -> dict[str, object]:
    return {name: record.__dict__.get(name) for name in ("rank", "run", "step")}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _choice(variable: str, default: str, known: tuple[str, ...]) -> str:
    """The value of an environment variable, which must be one of `known`; upper and lower case are the same."""
    value = os.environ.get(variable) or default
    found = [each for each in known if each.lower() == value.lower()]
    if not found:
        raise ConfigError(f"{variable} = {value!r} is unknown.", remedy=f"Set it to {', '.join(known)}.")
    return found[0]
