"""`mantis model chat`, as a person types it: through a pipe, with images, and stopped."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from mantis.artifacts.manifest import Manifest
from mantis.store.local import LocalStore
from tests.fixtures.cli import Mantis
from tests.helpers.waiting import HANG_SECONDS

AGAIN_SECONDS = 20  # between two presses of Ctrl-C
CHAT = [sys.executable, "-m", "pipelines.cli", "model", "chat"]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "red.png", tmp_path / "blue image.jpg"]
    for file, colour in zip(files, ("red", "blue"), strict=True):
        Image.new("RGB", (48, 48), colour).save(file)
    return files


def talk(
    lines: str, *words: object, store: LocalStore, environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*CHAT, *map(str, words), "--store", store.url, "--max-tokens", "6"],
        input=lines, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip


def test_questions_through_a_pipe(
    findable_model: Manifest, local_store: LocalStore, pictures: list[Path], mantis_environment: dict[str, str]
) -> None:
    question = "What colour is the square?"
    lines = f"{question}\n\n/reset\n/image {pictures[1]}\n{question}\n/reset\n/image {pictures[0]}\n{question}\n"
    done = talk(lines, "eval-run", pictures[0], store=local_store, environment=mantis_environment)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.split("\n")[:-1]
    assert first == third != second


def test_what_fails_is_said_and_the_rest_goes_on(
    findable_model: Manifest, local_store: LocalStore, pictures: list[Path], mantis_environment: dict[str, str]
) -> None:
    lines = f"/image nowhere.png\n/imagine {pictures[0]}\nWhat colour is the square?\n/quit\nnever asked\n"
    done = talk(lines, "models/abc", store=local_store, environment=mantis_environment)
    assert done.returncode == 1
    assert "nowhere.png cannot be shown" in done.stderr
    assert "/imagine is no command" in done.stderr
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def interrupted(process: "subprocess.Popen[bytes]") -> bytes:
    """Press Ctrl-C until the process ends, and return its errors.

    Python drops a KeyboardInterrupt that falls into a destructor, so a single one may have no effect.
    """
    until = time.monotonic() + HANG_SECONDS
    while time.monotonic() < until:
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=AGAIN_SECONDS)[1]
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("The process does not end.")


def test_ctrl_c_ends_a_conversation_in_a_terminal(
    findable_model: Manifest, local_store: LocalStore, mantis_environment: dict[str, str]
) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*CHAT, "models/abc", "--store", local_store.url],
        stdin=follower, stdout=follower, stderr=subprocess.PIPE, env=mantis_environment, start_new_session=True,
    )  # fmt: skip
    try:
        seen = b""
        while b"> " not in seen:
            seen += os.read(leader, 1000)
        os.write(leader, b"What colour is the square?\n")
        time.sleep(0.5)  # it answers, or waits for the next question: Ctrl-C ends both
        errors = interrupted(process)
        assert process.returncode == 130, errors
        assert b"Traceback" not in errors
    finally:
        process.kill()
        os.close(leader)
        os.close(follower)


def test_help_has_an_example(mantis: Mantis, tmp_path: Path) -> None:
    done = mantis("model", "chat", "--help", cwd=tmp_path)
    assert "mantis model chat RUN before.jpg after.jpg" in done.stdout
