"""`mantis model chat`, `predict`, `serve` and `deploy`: talk to a model, answer a file of questions, serve clients."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mantis.errors import ConfigError, MantisError
from pipelines.cli.arguments import Format, Model, PlatformFile, Store, examples, opened
from pipelines.cli.console import errors, note, show

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


def predict(
    model: Model,
    file: Annotated[
        str,
        typer.Argument(help="A file of questions, or a folder or URL with one subset. Forms as for training."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the lines here.", show_default="stdout")
    ] = None,
    format_: Format = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="Read a field under another key, as data.columns does. Repeatable."),
    ] = None,
    max_tokens: MaxTokens = 512,
    store: Store = "",
) -> None:
    """Answer a file of questions. Each line of the result is JSON: the id, the question, its images, the response.

    Rows have the forms of training data. The last answer may be missing; if it is there, the line repeats it as
    `answer`. A row that cannot be asked gets a line with the reason.

    A stopped command continues: the store keeps each batch of responses. Ask again to get them at once.
    """
    with redirect_stdout(sys.stderr):
        from mantis.generation.decoding import END_OF_TEXT, Decoding
        from pipelines.models.find_model import find_model
        from pipelines.models.prediction import PredictionRequest
        from pipelines.models.prediction import predict as predicted

        there = opened(store)
        request = PredictionRequest(
            address=file,
            form=format_ or "",
            columns=_columns(column),
            decoding=Decoding(max_new_tokens=max_tokens, stop=(END_OF_TEXT,)),
        )
        found = predicted(there, find_model(there, model), request)
    text = "".join(json.dumps(each.line, ensure_ascii=False) + "\n" for each in found)
    if out is None:
        sys.stdout.write(text)
    else:
        _replace(out, text)
    refused = sum(each.question is None for each in found)
    note(f"{len(found) - refused:,} questions were answered, {refused:,} rows were refused.")


def _columns(given: list[str] | None) -> dict[str, str]:
    columns = {}
    for item in given or ():
        ours, equals, theirs = item.partition("=")
        if not (ours and equals and theirs):
            raise ConfigError(f"--column {item!r} maps no field.", remedy="E.g. --column query=question.")
        columns[ours] = theirs
    return columns


def _replace(out: Path, text: str) -> None:
    """Write a file at once, so that a stopped command leaves the former one."""
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}.", remedy="Name a file in a folder that exists.") from None


def serve(
    model: Model,
    host: Annotated[
        str, typer.Option(help="The address to listen on. Any but the loopback needs MANTIS_API_KEY.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port. 0 takes any free one.")] = 8000,
    name: Annotated[str, typer.Option(help="The model's name for clients.", show_default="MODEL")] = "",
    max_tokens: MaxTokens = 512,
    max_images: Annotated[int, typer.Option(min=0, help="Images of a request.")] = 16,
    max_megapixels: Annotated[
        int, typer.Option(min=1, help="Megapixels of an image. A request may have twice that.")
    ] = 64,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Megabytes of a request's body.")] = 64,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests that wait or are answered at a time.")] = 64,
    max_batch: Annotated[int, typer.Option(min=1, help="Questions that are answered together.")] = 16,
    store: Store = "",
) -> None:
    """Serve a model to OpenAI clients, and to a browser at /.

    Clients send images as data URIs. Questions that wait are answered together. Answers are those of an evaluation.

    With MANTIS_API_KEY in the environment, clients have to send this key.
    """
    with redirect_stdout(sys.stderr):
        from components.serving.live_model import opened_live_model
        from components.serving.run_server import bound_socket
        from components.serving.run_server import serve as run
        from components.serving.server_limits import MEGABYTE, MEGAPIXEL, ServerLimits
        from pipelines.models.find_model import find_model

        bound = bound_socket(host, port)
        there = opened(store)
        limits = ServerLimits(
            images=max_images,
            image_pixels=max_megapixels * MEGAPIXEL,
            pixels=2 * max_megapixels * MEGAPIXEL,
            tokens=max_tokens,
            body_bytes=max_body_mb * MEGABYTE,
            held_bytes=8 * max_body_mb * MEGABYTE,
            requests=max_requests,
            batch=max_batch,
        )
        loading = opened_live_model(there, find_model(there, model), name=name or model, max_tokens=max_tokens)
    with loading as live:
        run(live, limits, bound, lambda url: show(f"{name or model} answers at {url} on {live.device}"))


def deploy(
    model: Model,
    image: Annotated[
        str, typer.Option(envvar="MANTIS_IMAGE", metavar="REF", help="The project's image.", show_default=False)
    ] = "",
    name: Annotated[
        str, typer.Option(help="The model's name for clients. Objects are named model-NAME.", show_default="a hash")
    ] = "",
    namespace: Annotated[str, typer.Option(help="A namespace with the objects of manifests/base.")] = "mantis",
    replicas: Annotated[int, typer.Option(min=1, help="Pods that answer.")] = 1,
    platform: PlatformFile = None,
    kserve: Annotated[bool, typer.Option("--kserve", help="Print an InferenceService of KServe.")] = False,
    store: Store = "",
) -> None:
    """Print the objects that serve a model on Kubernetes, for `kubectl apply -f -`.

    They are a Deployment, a Service and a network policy. The entry `serve` of the platform file gives the pods
    their resources. Without it, they get a core, and the memory that the model's size asks for.

    Clients send the key of the Secret mantis-server.
    """
    with redirect_stdout(sys.stderr):
        from components.serving.deployment.deployment_request import DeploymentRequest
        from pipelines.execution.platform import platform_of, resources_of_server
        from pipelines.kubeflow.compile import known_steps
        from pipelines.models.model_deployment import deployment_of

        asked = DeploymentRequest(
            image=image,
            namespace=namespace,
            name=name,
            replicas=replicas,
            resources=resources_of_server(platform_of(image, platform, known_steps())),
            kserve=kserve,
        )
        text = deployment_of(opened(store), model, asked)
    print(text, end="")


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


COMMANDS: dict[Callable[..., None], str] = {
    chat: examples(
        "mantis model chat RUN before.jpg after.jpg",
        'echo "What differs?" | mantis model chat models:/demo@newest before.jpg after.jpg',
    ),
    serve: examples(
        "mantis model serve RUN",
        "MANTIS_API_KEY=... mantis model serve models:/demo@newest --host 0.0.0.0 --port 8000",
    ),
    predict: examples(
        "mantis model predict RUN questions.jsonl --out answers.jsonl",
        "mantis model predict models:/demo@newest questions.parquet --column query=question",
    ),
    deploy: examples(
        "mantis model deploy RUN --image REF --name assistant | kubectl apply -f -",
        "mantis model deploy RUN --image REF --platform manifests/overlays/a100/steps.yaml --kserve",
    ),
}
