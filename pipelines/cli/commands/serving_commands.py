"""`mantis model chat`: talk to a model in the terminal."""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mantis.errors import MantisError
from pipelines.cli.arguments import Model, Store, examples, opened
from pipelines.cli.console import errors, note

if TYPE_CHECKING:
    from components.serving.chat_session import ChatSession

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a model's text must not command the terminal
PROMPT = "> "
HELP = "/image PATH shows an image with the next question. /reset begins a new conversation. /quit or Ctrl-D ends."

MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="The longest answer, in tokens.")]


def chat(
    model: Model,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Images for the first question.")
    ] = None,
    system: Annotated[str, typer.Option(help="A text before the first turn, in place of the model's own.")] = "",
    max_tokens: MaxTokens = 512,
    store: Store = "",
) -> None:
    """Talk to a model about images. It answers as in an evaluation: greedily, with the prompts of its family.

    Type a question. /image PATH shows an image with the next question, and /reset begins a new conversation.

    Each line of a pipe is one question. stdout gets the answers alone.
    """
    with ExitStack() as loaded:
        with redirect_stdout(sys.stderr):  # libraries that load models print there
            from components.serving.chat_session import ChatSession
            from components.serving.live_model import opened_live_model
            from pipelines.models.find_model import find_model

            there = opened(store)
            found = find_model(there, model)
            live = loaded.enter_context(opened_live_model(there, found, name=model, max_tokens=max_tokens))
        session = ChatSession(live, system=system)
        for path in images or ():
            session.add_image(path)
        _talk(session)


def _talk(session: "ChatSession") -> None:
    typed = sys.stdin.isatty()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a pipe may hold bytes of another encoding
    if typed:
        note(HELP)
    failed = False
    for line in _lines(typed):
        try:
            if not _command(session, line):
                session.ask(line, _write)
                _write("\n")
        except MantisError as error:
            errors.print(str(error), markup=False)
            failed = True
    if failed and not typed:
        raise typer.Exit(1)


def _lines(typed: bool) -> Iterator[str]:
    """The lines that are not empty, up to the end of the input or `/quit`."""
    if typed:
        import readline  # noqa: F401 - lets `input` edit lines and keep those before
    while True:
        try:
            line = (input(PROMPT) if typed else _next_line()).strip()
        except EOFError:
            return
        if line == "/quit":
            return
        if line:
            yield line


def _next_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _command(session: "ChatSession", line: str) -> bool:
    """Carry out `/image`, `/reset` or `/help`. False for a question."""
    word, _, rest = line.partition(" ")
    if word == "/image":
        session.add_image(Path(rest.strip()))
        note(f"{session.images} images in the conversation.")
    elif word == "/reset":
        session.reset()
    elif word == "/help":
        note(HELP)
    elif re.fullmatch(r"/\w+", word):
        note(f"{word} is no command. {HELP}")
    else:
        return False
    return True


def _write(piece: str) -> None:
    sys.stdout.write(CONTROL.sub("", piece))
    sys.stdout.flush()


COMMANDS = {
    chat: examples(
        "mantis model chat RUN before.jpg after.jpg",
        'echo "What differs?" | mantis model chat models:/demo@newest before.jpg after.jpg',
    ),
}
