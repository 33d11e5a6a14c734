"""MLflow's table of runs: the server that `mantis ui` starts, and the line with its address behind a run."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import webbrowser
from contextlib import suppress
from shlex import quote

from mantis.errors import ConfigError, MantisError, TrackingError
from mantis.processes import die_with_parent, sigterm_raises
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.tracking.mlflow_database import ARTIFACTS
from mantis.tracking.mlflow_runs import (
    database_folder,
    find_tracked_run,
    mlflow_client,
    tracking_error,
    tracking_uri,
)
from mantis.tracking.runs_view import keep_view, newest_experiment, table_of_runs
from pipelines.cli.console import show

HOST = "127.0.0.1"
ASK_SECONDS = 0.2  # between two looks at whether the server answers; its start takes up to half a minute


def serve_runs(store: ObjectStore, port: int, *, open_page: bool) -> None:
    """Start MLflow's server with the runs of `store`, and wait for its end. Print the address once the server answers.

    Raises:
        ConfigError: the port cannot be used.
        MantisError: the server ended with an error.
    """
    _check_port(port)
    uri, folder = tracking_uri(store), database_folder(store)
    show(f"MLflow starts with the runs of {uri}")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", HOST, "--port", str(port)]
    if folder is not None:
        command += ["--artifacts-destination", str(folder / ARTIFACTS)]
    page = f"http://{HOST}:{port}/{_newest_table(store)}"
    with sigterm_raises(), subprocess.Popen(command, env=os.environ, preexec_fn=die_with_parent) as server:
        given = (page, server, open_page)
        threading.Thread(target=show_when_ready, args=given, name="show-page", daemon=True).start()
        try:
            code = server.wait()
        finally:
            server.terminate()
    if code:
        raise MantisError(f"MLflow ended with exit code {code}.", remedy="The lines above say why.")


def runs_line(run: Run) -> str:
    """Return the line that leads from a run to the table of all runs; empty if MLflow's server does not answer."""
    if database_folder(run.store) is not None:
        return f"runs    mantis ui --open --store {quote(run.store.url)}"
    try:
        tracked = find_tracked_run(run)
    except TrackingError:  # the opening of the run has printed why
        return ""
    except Exception as error:  # MLflow's client raises many kinds
        return f"runs    {tracking_error(error, run.store)}"
    if tracked is None:
        return ""
    return f"runs    {tracking_uri(run.store).rstrip('/')}/{table_of_runs(tracked.client, tracked.experiment)}"


def _newest_table(store: ObjectStore) -> str:
    """Return the table of the experiment with the newest run, in the view that fits its runs."""
    from mlflow.exceptions import MlflowException

    client = mlflow_client(store)
    experiment = newest_experiment(client)
    if experiment:
        with suppress(MlflowException):  # a user who may only read sees the view as it is
            keep_view(client, experiment)
    return table_of_runs(client, experiment)


def show_when_ready(page: str, server: "subprocess.Popen[bytes]", open_page: bool) -> None:
    """Print the address when the server answers, since a browser refuses it before; then open it, if this is wanted."""
    health = urllib.parse.urljoin(page, "/health")
    while server.poll() is None:
        try:
            urllib.request.urlopen(health, timeout=2).close()
        except OSError:
            time.sleep(ASK_SECONDS)
        else:
            show(page)
            if open_page:
                webbrowser.open(page)
            return


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"--port {port} cannot be used: {error.strerror}.", remedy="Name another one, e.g. --port 5001."
            ) from None
