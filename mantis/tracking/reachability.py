"""Ask within seconds whether MLflow can be reached, and name the fault if it cannot.

MLflow's client retries for minutes before it raises an error, and its errors do not tell a wrong address from a server
that is away. So one short request goes first.
"""

import os
import queue
import threading
import time
from typing import Any
from urllib.parse import urlparse

from mantis.errors import TrackingError

ANSWER_SECONDS = 3.5  # an outage is said within five seconds, the start of the request included
AGAIN_SECONDS = 5.0  # within this time after an outage, no request is made
REQUEST_SECONDS = 8  # of each later request: a command ends within ten seconds of its work
SENT_LATER = "The run does not wait. The store keeps all data, and the same command sends it later."
PATH = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"

_away: dict[str, tuple[float, TrackingError]] = {}  # by URI: when it was asked, and why it is away


class TrackingAwayError(TrackingError):
    """MLflow cannot be reached at this moment, or not at this address."""


def check_reachable(uri: str) -> None:
    """Ask the MLflow server at `uri`; anything but http(s) is a file, and counts as reachable.

    Raises:
        TrackingAwayError: no MLflow answers there within ANSWER_SECONDS.
        TrackingError: MLflow refuses the login.
    """
    if not uri.startswith(("http://", "https://")):
        return
    asked, error = _away.get(uri, (0.0, None))
    if error is None or time.monotonic() - asked > AGAIN_SECONDS:
        _away.pop(uri, None)
        error = _ask(uri)
        if error is not None:
            _away[uri] = (time.monotonic(), error)
    if error is not None:
        raise error


def ask_again(uri: str) -> None:
    """Let the next `check_reachable` make a request, however short ago MLflow was away."""
    _away.pop(uri, None)


def limit_requests() -> None:
    """Let MLflow's client fail within REQUEST_SECONDS; the user's own settings stay."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def _ask(uri: str) -> TrackingError | None:
    # A thread, because the resolver of names knows no timeout.
    answers: queue.Queue[TrackingError | None] = queue.Queue()
    threading.Thread(target=lambda: answers.put(_answer(uri)), name="mlflow-reachable", daemon=True).start()
    try:
        return answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return _away_error(uri, f"did not answer within {ANSWER_SECONDS:.0f} s", "Check that it runs, and the network.")


def _answer(uri: str) -> TrackingError | None:
    """The fault of the server at `uri`; None if MLflow answers."""
    import requests

    headers, login = _credentials()
    try:
        answer = requests.get(
            uri.rstrip("/") + PATH, headers=headers, auth=login, timeout=ANSWER_SECONDS, verify=_certificates()
        )
    except requests.exceptions.Timeout:
        return _away_error(uri, f"did not answer within {ANSWER_SECONDS:.0f} s", "Check that it runs, and the network.")
    except requests.exceptions.RequestException as error:
        return _connection_error(uri, error)
    if answer.status_code == 401:
        return TrackingError(
            f"MLflow at {uri} refuses the login.",
            remedy=f"Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. {SENT_LATER}",
        )
    if answer.status_code >= 500:
        return _away_error(uri, f"answers with status {answer.status_code}", "Look at the server's log.")
    if not _is_mlflow(answer):
        return _away_error(
            uri, "is no MLflow server", "Set MLFLOW_TRACKING_URI to the address of the server, without a page's path."
        )
    return None


def _connection_error(uri: str, error: Exception) -> TrackingError:
    text = str(error)
    if "NameResolutionError" in text or "getaddrinfo" in text or "No host supplied" in text:
        problem = f"cannot be found: no machine has the name {urlparse(uri).hostname or ''!r}"
        return _away_error(uri, problem, "Correct MLFLOW_TRACKING_URI.")
    if "SSLError" in type(error).__name__:
        return _away_error(uri, "shows a certificate that is not trusted", "Set MLFLOW_TRACKING_SERVER_CERT_PATH.")
    if "refused" in text:
        return _away_error(uri, "refuses the connection: nothing listens there", "Start it, or correct the port.")
    return _away_error(uri, "closes the connection", "Check that it runs, and correct MLFLOW_TRACKING_URI.")


def _away_error(uri: str, problem: str, remedy: str) -> TrackingAwayError:
    return TrackingAwayError(f"MLflow at {uri} {problem}.", remedy=f"{remedy} {SENT_LATER}")


def _is_mlflow(answer: Any) -> bool:
    """Whether the body is MLflow's: an experiment, or an error with a code."""
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and bool({"experiment", "error_code"} & set(body))


def _credentials() -> tuple[dict[str, str], tuple[str, str] | None]:
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user:
        return {}, (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    return ({"Authorization": f"Bearer {token}"} if token else {}), None


def _certificates() -> bool | str:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
