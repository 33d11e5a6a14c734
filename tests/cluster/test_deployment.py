"""A model that `mantis model deploy` renders: it answers through its Service, refuses floods, and survives a kill."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import yaml
from typer.testing import CliRunner

from mantis.artifacts.manifest import Manifest, commit_manifest, describe_files
from mantis.generation.answerer import Question
from mantis.generation.chat_messages import data_uri, openai_request
from mantis.generation.decoding import Decoding
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from pipelines.cli.main import app
from tests.cluster.test_image import SECURITY
from tests.helpers.kubectl import Kube

NAME = f"test-{uuid4().hex[:8]}"
SECONDS = 240  # for a server to be ready; most of it is the import of torch on a busy machine
# Asks the server in another pod: reads {url, key, body, image, zeros} on stdin, prints the status and the JSON.
ASK = """
import base64, io, json, sys, urllib.error, urllib.request
from PIL import Image

asked = json.load(sys.stdin)
body = asked["body"]
if asked["image"] == "200 megapixels":
    file = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(file, "PNG")
    body["messages"][-1]["content"][0]["image_url"]["url"] = (
        "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    )
elif asked["image"]:
    body["messages"][-1]["content"][0]["image_url"]["url"] = asked["image"]
data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
if asked["zeros"]:
    part = bytes(1_000_000)
    data, headers["Content-Length"] = (part for _ in range(asked["zeros"])), str(asked["zeros"] * len(part))
if asked["key"]:
    headers["Authorization"] = "Bearer " + asked["key"]
try:
    with urllib.request.urlopen(urllib.request.Request(asked["url"], data, headers), timeout=120) as answer:
        print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""
Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def stored_on_cluster(findable_model: Manifest, local_store: LocalStore, services: dict[str, str]) -> ObjectStore:
    """The bucket of the cluster, with a model and the run that made it."""
    store = open_store(f"s3://mantis/{NAME}")
    for entry in local_store.list(""):
        store.put_file(entry.key, local_store.root / entry.key)
    files = describe_files(store, findable_model.key)
    commit_manifest(store, findable_model.model_copy(update={"files": files}))
    return store


@pytest.fixture
def objects(kube: Kube, image: str, stored_on_cluster: ObjectStore) -> Iterator[str]:
    """The applied objects of a server."""
    words = ["models/abc", "--store", stored_on_cluster.url, "--image", image, "--name", NAME]
    done = CliRunner().invoke(app, ["model", "deploy", *words])
    assert done.exit_code == 0, done.output
    said = kube.kubectl("apply", "-f", "-", stdin=done.stdout)
    assert "would violate" not in said
    assert said.count("created") == len(list(yaml.safe_load_all(done.stdout)))
    yield done.stdout
    kube.kubectl("delete", "--wait=false", "-f", "-", stdin=done.stdout)


@pytest.fixture
def ask(kube: Kube, image: str, namespace: str) -> Ask:
    """Ask the server through its Service, from a pod of a namespace that may."""
    kube.kubectl("label", "namespace", namespace, "mantis-kfp/asks=true")
    container = {"name": "asker", "image": image, "command": ["sleep", "3600"], "securityContext": SECURITY}
    spec = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0, "containers": [container]}
    kube.core.create_namespaced_pod(namespace, {"metadata": {"name": "asker"}, "spec": spec})
    kube.kubectl("-n", namespace, "wait", "--for=condition=ready", "pod/asker", "--timeout=120s")
    key = kube.secret("mantis", "mantis-server")["MANTIS_API_KEY"]

    def call(
        body: dict[str, Any], *, image: str = "", megabytes: int = 0, key: str = key
    ) -> tuple[int, dict[str, Any]]:
        url = f"http://model-{NAME}.mantis.svc:8000/v1/chat/completions"
        asked = {"url": url, "key": key, "body": body, "image": image, "zeros": megabytes}
        said = kube.kubectl("-n", namespace, "exec", "-i", "asker", "--", "python3", "-c", ASK, stdin=json.dumps(asked))
        status, answer = json.loads(said.splitlines()[-1])
        return status, answer

    return call


def test_it_answers_as_evaluation_does_refuses_floods_and_comes_back(
    kube: Kube, evaluated: list[tuple[Question, str]], objects: str, ask: Ask
) -> None:
    kube.kubectl("-n", "mantis", "rollout", "status", f"deployment/model-{NAME}", f"--timeout={SECONDS}s")
    question, response = next(pair for pair in evaluated if len(pair[0].pictures) == 2)
    body = openai_request(question, Decoding(max_new_tokens=8), model=NAME, link=data_uri)

    def answer() -> Any:
        status, said = ask(body)
        assert status == 200, said
        return said["choices"][0]["message"]["content"]

    assert answer() == response
    refused: dict[tuple[int, str], dict[str, Any]] = {
        (401, "invalid_api_key"): {"key": "wrong"},
        (400, "invalid_image"): {"image": "data:image/png;base64," + base64.b64encode(b"no image").decode()},
        (400, "image_url_not_allowed"): {"image": "http://minio.mantis.svc:9000/mantis/a.png"},
        (400, "image_too_large"): {"image": "200 megapixels"},
    }
    for (status, code), changes in refused.items():
        found, said = ask(body, **changes)
        assert (found, said["error"]["code"]) == (status, code), said
    found, said = ask(body, megabytes=1000)
    # The second one where the network takes more than a minute for 1 GB.
    assert (found, said["error"]["code"]) in ((413, "body_too_large"), (408, "body_too_slow")), said
    assert answer() == response

    def containers() -> list[Any]:
        selected = kube.core.list_namespaced_pod("mantis", label_selector=f"mantis-kfp/server=model-{NAME}")
        return [pod.status.container_statuses[0] for pod in selected.items]

    assert [each.restart_count for each in containers()] == [0]
    of_server = ("-n", "mantis", "exec", f"deployment/model-{NAME}", "--")
    kube.kubectl(*of_server, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)", check=False)
    kube.until(
        "the killed server is back", lambda: [(c.restart_count, c.ready) for c in containers()] == [(1, True)], SECONDS
    )
    assert answer() == response
    copies = kube.kubectl(*of_server, "sh", "-c", "ls -d /tmp/mantis-model-*").split()
    assert len(copies) == 1, "the copy of the killed server fills the disk"


@pytest.mark.parametrize("kserve", [False, True])
def test_the_api_server_takes_the_objects(
    kube: Kube, image: str, stored_on_cluster: ObjectStore, namespace: str, kserve: bool
) -> None:
    """With a disruption budget and a GPU; under strict checks of the fields, in a namespace of its own."""
    if kserve and "inferenceservices" not in kube.kubectl("api-resources", "--api-group=serving.kserve.io", "-o=name"):
        pytest.skip("no InferenceService in this cluster: KServe's CRDs are not installed")
    words = ["models/abc", "--store", stored_on_cluster.url, "--image", image, "--namespace", namespace]
    words += ["--platform", "manifests/overlays/a100/steps.yaml", "--replicas", "2", *(["--kserve"] * kserve)]
    done = CliRunner().invoke(app, ["model", "deploy", *words])
    assert done.exit_code == 0, done.output
    said = kube.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=done.stdout)
    assert "would violate" not in said
    assert said.count("created (server dry run)") == (2 if kserve else 4)
