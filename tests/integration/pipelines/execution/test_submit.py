"""`mantis pipeline submit` against an HTTP server that answers as KFP's API v2beta1 does."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kfp.client import Client, auth
from typer.testing import CliRunner, Result

from mantis.errors import ConfigError
from pipelines.cli.main import app
from pipelines.kubeflow.submit import check_parameters

IMAGE = "registry/mantis@sha256:" + "a" * 64
TOKEN = "a-token-that-nobody-may-see"
API = "/apis/v2beta1"


class Kfp(ThreadingHTTPServer):
    """What the server remembers: pipelines, versions, runs, and the states that a run goes through.

    Versions are listed one a page. The first page has one of another program.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pipelines: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = [{"pipeline_version_id": "version-1", "display_name": "of another"}]
        self.experiments: list[dict[str, Any]] = []
        self.created: list[tuple[str, dict[str, Any]]] = []
        self.packages: list[str] = []
        self.states = ["SUCCEEDED"]


class Handler(BaseHTTPRequestHandler):
    server: Kfp

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path, query = address.path.removeprefix(API), parse_qs(address.query)
        if path == "/healthz":
            self._answer({"multi_user": False})
        elif path == "/pipelines":
            self._answer({"pipelines": self._named(self.server.pipelines, query)})
        elif path.endswith("/versions"):
            page = int((query.get("page_token") or ["0"])[0] or 0)
            more = {"next_page_token": str(page + 1)} if page + 1 < len(self.server.versions) else {}
            self._answer({"pipeline_versions": self.server.versions[page : page + 1], **more})
        elif path == "/experiments":
            self._answer({"experiments": self._named(self.server.experiments, query)})
        elif path.startswith("/runs/"):
            states = self.server.states
            self._answer({"run_id": "run-1", "state": states.pop(0) if len(states) > 1 else states[0]})
        else:
            self._answer({"message": "not found"}, 404)

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        path, query = address.path.removeprefix(API), parse_qs(address.query)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] not in (TOKEN, f"Bearer {TOKEN}"):
            self._answer({"message": "who are you"}, 401)
        elif path == "/pipelines/upload":
            self.server.pipelines.append(
                {"pipeline_id": "pipeline-1", "display_name": query["name"][0], "description": query["description"][0]}
            )
            self._answer(self.server.pipelines[-1])
        elif path == "/pipelines/upload_version":
            self.server.packages.append(body.decode())
            number = len(self.server.versions) + 1
            version = {"pipeline_version_id": f"version-{number}", "display_name": query["name"][0]}
            version["description"] = query["description"][0]
            self.server.versions.append(version | {"pipeline_id": query["pipelineid"][0]})
            self._answer(self.server.versions[-1])
        elif path == "/experiments":
            self.server.experiments.append(json.loads(body) | {"experiment_id": "experiment-1"})
            self._answer(self.server.experiments[-1])
        elif path in ("/runs", "/recurringruns"):
            self.server.created.append((path, json.loads(body)))
            self._answer({"run_id": "run-1", "recurring_run_id": "recurring-1"})
        else:
            self._answer({"message": "not found"}, 404)

    def _named(self, rows: list[dict[str, Any]], query: dict[str, list[str]]) -> list[dict[str, Any]]:
        wanted = [p["stringValue"] for text in query.get("filter", []) for p in json.loads(text)["predicates"]]
        return [row for row in rows if row["display_name"] in wanted]

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def kfp() -> Iterator[Kfp]:
    with Kfp() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def submit(kfp: Kfp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, without what KFP's client keeps in the home folder of a developer."""
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(auth, "LOCAL_KFP_CREDENTIAL", str(tmp_path / "credentials.json"))

    def call(*more: str, token: str = TOKEN, **environment: str) -> Result:
        host = f"http://127.0.0.1:{kfp.server_address[1]}"
        where = ("--host", host, "--image", IMAGE, "--store", "s3://mantis/x", "--namespace", "team")
        given = {"MANTIS_KFP_TOKEN": token, "COLUMNS": "200", **environment}
        return CliRunner().invoke(app, ["pipeline", "submit", "demo", *where, *more], env=given)

    return call


def test_a_submission_passes_everything_and_uploads_a_version_once(kfp: Kfp, submit: Callable[..., Result]) -> None:
    done = submit("--set=training.learning_rate=5e-6", "--set=training.seed=2", "--set=data.skills=[multi, single]")
    assert done.exit_code == 0, done.stdout + done.stderr
    path, run = kfp.created[0]
    assert path == "/runs"
    assert run["runtime_config"]["parameters"] == {
        "recipe": "demo",
        "learning_rate": "5e-6",
        "epochs": "",
        "batch_size": "",
        "nodes": "",
        "benchmarks": "",
        "overrides": "training.seed=2 data.skills=[multi, single]",
        "mantis_run": "",
        "store_url": "s3://mantis/x",
    }
    assert run["service_account"] == "mantis-steps"
    assert run["pipeline_version_reference"] == {"pipeline_id": "pipeline-1", "pipeline_version_id": "version-2"}
    assert re.fullmatch(r"demo-[0-9a-f]{8}", run["display_name"])
    assert "/#/runs/details/run-1" in done.stdout
    assert IMAGE in kfp.packages[0]
    assert "unbound" not in kfp.packages[0].lower()
    about = kfp.pipelines[0]["description"]
    assert "Change `learning_rate`" in about
    assert kfp.versions[-1]["description"] == f"Image: {IMAGE}. {about}"

    again = submit("--follow")
    assert again.exit_code == 0, again.stdout + again.stderr
    assert len(kfp.versions) == 2, "the version is found on the second page"
    assert len(kfp.created) == 2
    assert TOKEN not in done.stdout + done.stderr + again.stdout + again.stderr


def test_a_pod_is_let_in_by_its_service_account(kfp: Kfp, submit: Callable[..., Result], tmp_path: Path) -> None:
    """Whose token is a file, for the audience of KFP."""
    mounted = tmp_path / "token"
    mounted.write_text(TOKEN)
    done = submit(token="", KF_PIPELINES_SA_TOKEN_PATH=str(mounted))
    assert done.exit_code == 0, done.stdout + done.stderr
    assert len(kfp.created) == 1
    mounted.write_text("of somebody else")
    refused = submit(token="", KF_PIPELINES_SA_TOKEN_PATH=str(mounted))
    assert "answered 401" in refused.stderr
    assert "KF_PIPELINES_SA_TOKEN_PATH" in refused.stderr


def test_a_schedule_is_a_recurring_run(kfp: Kfp, submit: Callable[..., Result]) -> None:
    done = submit("--cron", "0 0 3 * * 1")
    assert done.exit_code == 0, done.stdout + done.stderr
    path, made = kfp.created[0]
    assert path == "/recurringruns"
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert made["no_catchup"] is True


def test_a_run_that_fails_makes_follow_fail(kfp: Kfp, submit: Callable[..., Result]) -> None:
    kfp.states = ["FAILED"]
    done = submit("--follow")
    assert done.exit_code == 1
    assert re.search(r"mantis status demo-[0-9a-f]{8}", done.stderr)


@pytest.mark.parametrize(
    ("more", "token", "said"),
    [
        ((), "wrong", "answered 401"),
        (("--image", "mantis:latest"), TOKEN, "has no digest"),
        (("--pipeline", "evaluation"), TOKEN, "--model"),
        (("--store", "file:///tmp/x"), TOKEN, "pods cannot reach it"),
        (("--set", "training.epochs=0"), TOKEN, "training.epochs"),
        (("--host", "http://127.0.0.1:9"), TOKEN, "does not answer"),
    ],
)
def test_what_cannot_be_submitted_is_explained(
    kfp: Kfp, submit: Callable[..., Result], more: tuple[str, str], token: str, said: str
) -> None:
    done = submit(*more, token=token)
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert kfp.created == []


def test_a_sweep_passes_its_values_and_its_limit_of_arms(kfp: Kfp, submit: Callable[..., Result]) -> None:
    over = "--over=training.learning_rate=2e-4,4e-4"
    done = submit("--pipeline=sweep", over, "--over=training.seed=1,2", "--parallel=2", "--name=mine")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert kfp.created[0][1]["runtime_config"]["parameters"]["over"] == (
        "training.learning_rate=2e-4,4e-4 training.seed=1,2"
    )
    assert kfp.created[0][1]["display_name"] == "mine"
    assert "parallelismLimit: 2" in kfp.packages[0]


def test_a_search_passes_its_range_and_its_number_of_trials(kfp: Kfp, submit: Callable[..., Result]) -> None:
    evaluated = ("--set=data.holdout=16", "--set=training.evaluate_every=10")
    over = "--over=training.learning_rate=1e-4..1e-3:log"
    done = submit("--pipeline=sweep", over, *evaluated, "--trials=3", "--name=mine")
    assert done.exit_code == 0, done.stdout + done.stderr
    passed = kfp.created[0][1]["runtime_config"]["parameters"]
    assert passed["over"] == "training.learning_rate=1e-4..1e-3:log"
    assert passed["trials"] == "3"
    assert kfp.created[0][1]["display_name"] == "mine"
    refused = submit("--pipeline=sweep", over, "--trials=3")
    assert "training.evaluate_every is not set" in refused.stderr


@pytest.mark.parametrize(
    ("pipeline", "given", "said"),
    [
        ("ablation", {"trials": 3}, "searches for no values, so --trials 3 does not fit"),
        ("sweep", {}, "does not fit --over ''"),
        ("instruction-tuning", {"over": ["training.seed=1,2"]}, "does not fit --over 'training.seed=1,2'"),
        ("evaluation", {"model": "models/x", "parallel": 2}, "has no arms, so --parallel 2 limits nothing"),
    ],
)
def test_parameters_of_another_pipeline_are_refused(pipeline: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_parameters(pipeline, **({"model": ""} | given))
