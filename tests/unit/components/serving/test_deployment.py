"""A server on Kubernetes as data: what its pods may do, whom they reach, and what they ask for."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.serving.deployment.deployment_request import DeploymentRequest
from components.serving.deployment.deployment_spec import rendered
from components.serving.server_limits import KEY, STOP_SECONDS
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import File, MadeBy, Manifest
from mantis.errors import ConfigError
from mantis.store.s3 import MinioStore
from pipelines.cli.main import app
from pipelines.execution.platform import platform_of, resources_of_server
from pipelines.kubeflow.compile import known_steps
from tests.helpers.paths import ROOT
from tests.helpers.restricted_pods import assert_restricted
from tests.helpers.yaml_files import documents
from tests.unit.repository.test_manifests import MANIFESTS, named, pods

GIB = 2**30
STORE = MinioStore(bucket="mantis", prefix="here")
A100 = MANIFESTS / "overlays" / "a100" / "steps.yaml"


def model_of(parameters: int, *, kind: ArtifactKind = ArtifactKind.MODEL, width: int = 2) -> Manifest:
    """A model with `width` bytes per parameter in two files of weights."""
    half = parameters * width // 2
    files = [File(name=f"model-{place}-of-2.safetensors", size=half, sha256="0" * 64) for place in (1, 2)]
    files.append(File(name="config.json", size=1000, sha256="0" * 64))
    made_by = MadeBy(run="demo-1", step="convert", revision=1, config_hash="", code_version="", image_digest="")
    made = "0123456789abcdef" * 4
    return Manifest(
        kind=kind,
        key=ArtifactKind.MODEL.address(fingerprint=made),
        fingerprint=made,
        made_by=made_by,
        files=tuple(files),
        summary={"parameters": parameters},
    )


def objects(parameters: int = 1000, **asked: Any) -> dict[str, dict[str, Any]]:
    """The rendered objects by kind."""
    text = rendered(STORE, model_of(parameters), DeploymentRequest(image="mantis/train:1", **asked))
    found = {document["kind"]: document for document in documents(text)}
    assert len(found) == text.count("apiVersion: ")
    return found


def pod_of(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (pod,) = pods(found)
    return pod


@pytest.mark.parametrize("kserve", [False, True])
def test_the_pod_is_restricted_and_has_no_rights(kserve: bool) -> None:
    pod = pod_of(objects(kserve=kserve))
    assert_restricted(pod)
    assert pod["automountServiceAccountToken"] is False
    account = named("base", "ServiceAccount", pod["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp"}
    scratch, authorities = pod["volumes"]
    assert scratch.keys() == {"name", "emptyDir"}
    assert authorities == {"name": "authorities", "secret": {"secretName": "mantis-authorities", "optional": True}}


def test_it_gets_the_keys_of_a_reader_and_the_key_of_clients_from_secrets_that_the_platform_makes() -> None:
    (container,) = pod_of(objects())["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "mantis-store-read"}}]
    (key,) = [entry for entry in container["env"] if entry["name"] == KEY]
    assert key["valueFrom"] == {"secretKeyRef": {"name": "mantis-server", "key": KEY}}
    script = (MANIFESTS / "base" / "bootstrap" / "make_secrets.py").read_text()
    for secret in ("mantis-store-read", "mantis-server"):
        assert f'"{secret}":' in script


def test_the_service_and_the_policy_select_the_pods_of_this_server_alone() -> None:
    found, other = objects(name="one"), objects(name="two")
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    others = other["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= others.items()
    (port,), (container,) = found["Service"]["spec"]["ports"], pod_of(found)["containers"]
    assert port["targetPort"] in {each["name"] for each in container["ports"]}


def test_no_name_meets_an_object_or_a_selector_of_the_platform() -> None:
    for name in ("minio", "mlflow"):
        found = objects(name=name)
        assert {each["metadata"]["name"] for each in found.values()} == {f"model-{name}"}
        labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert not named("base", "Service", name)["spec"]["selector"].items() <= labels.items()


def test_clients_reach_the_port_and_the_server_reaches_the_store() -> None:
    found = objects()
    spec = found["NetworkPolicy"]["spec"]
    asks = {"matchLabels": {"mantis-kfp/asks": "true"}}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [
        {
            "from": [{"podSelector": asks}, {"namespaceSelector": asks}],
            "ports": [{"port": found["Service"]["spec"]["ports"][0]["port"], "protocol": "TCP"}],
        }
    ]
    assert "egress" not in spec  # only what the platform's policies give to this label
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    reaching = named("base", "NetworkPolicy", "clients-reach-services")["spec"]["podSelector"]["matchLabels"]
    assert reaching.items() <= labels.items()
    (rule,) = named("base", "NetworkPolicy", "askers-reach-servers")["spec"]["egress"]
    assert rule["to"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert rule["ports"][0]["port"] == spec["ingress"][0]["ports"][0]["port"]


def test_the_server_has_the_time_to_start_and_to_end() -> None:
    small, large = (pod_of(objects(parameters)) for parameters in (1_000_000, 8_400_000_000))
    for pod in (small, large):
        (container,) = pod["containers"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[name]["httpGet"] == {"path": "/health", "port": "http1"}
        drained = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert drained + STOP_SECONDS < pod["terminationGracePeriodSeconds"] <= drained + STOP_SECONDS + 30
    starts = [
        pod["containers"][0]["startupProbe"]["failureThreshold"] * pod["containers"][0]["startupProbe"]["periodSeconds"]
        for pod in (small, large)
    ]
    assert 300 <= starts[0] <= 310
    assert starts[1] > starts[0] + 16.8e9 / 60e6  # a store may hand over 60 MB a second
    assert objects(8_400_000_000)["Deployment"]["spec"]["progressDeadlineSeconds"] > starts[1]


def amount(quantity: str) -> int:
    return int(quantity.removesuffix("Mi")) * 2**20


@pytest.mark.parametrize("width", [2, 4])
def test_memory_and_disk_follow_the_size_of_the_model(width: int) -> None:
    """A CPU computes in fp32, whatever the width of the stored weights. With a GPU, the host reads them once."""
    parameters = 8_400_000_000

    def asked(**resources: Any) -> dict[str, Any]:
        request = DeploymentRequest(image="i", resources=resources)
        text = rendered(STORE, model_of(parameters, width=width), request)
        (pod,) = pods(documents(text))
        found: dict[str, Any] = pod["containers"][0]["resources"] | {"pod": pod}
        return found

    cpu, gpu = asked(), asked(gpus=1, cpu="8")
    assert 4 * parameters < amount(cpu["requests"]["memory"]) < 4 * parameters + 4 * GIB
    assert width * parameters < amount(gpu["requests"]["memory"]) < width * parameters + 4 * GIB
    assert asked(memory="64Gi")["limits"]["memory"] == "64Gi"
    for found in (cpu, gpu):
        assert found["limits"]["memory"] == found["requests"]["memory"]
        (volume,) = [each for each in found["pod"]["volumes"] if "emptyDir" in each]
        assert width * parameters < amount(volume["emptyDir"]["sizeLimit"]) < width * parameters + 2 * GIB
        assert found["limits"]["ephemeral-storage"] == volume["emptyDir"]["sizeLimit"]


def test_a_gpu_is_asked_for_where_the_platform_has_one() -> None:
    found = resources_of_server(platform_of("", A100, known_steps()))
    pod = pod_of(objects(resources=found | {"node_selector": {"gpu": "a100"}, "queue": "research"}))
    resources = pod["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert pod["tolerations"] == [{"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["nodeSelector"] == {"gpu": "a100"}
    queued = objects(resources={"queue": "research"})["Deployment"]["metadata"]["labels"]
    assert queued["kueue.x-k8s.io/queue-name"] == "research"
    without = pod_of(objects())
    assert "nvidia.com/gpu" not in str(without)
    assert "tolerations" not in without


@pytest.mark.parametrize(("field", "value"), [("gpus", "2"), ("timeout_seconds", "60"), ("shared_memory", "1Gi")])
def test_a_platform_that_a_server_cannot_use_is_refused(field: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text(f"serve: {{{field}: {value}}}")
    with pytest.raises(ConfigError, match=f"serve.*{field}"):
        platform_of("", path, known_steps())


def test_several_pods_have_a_disruption_budget_and_spread() -> None:
    assert "PodDisruptionBudget" not in objects()
    assert "topologySpreadConstraints" not in pod_of(objects())
    found = objects(replicas=3)
    assert found["Deployment"]["spec"]["replicas"] == 3
    budget = found["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == found["Deployment"]["spec"]["selector"]
    (spread,) = pod_of(found)["topologySpreadConstraints"]
    assert spread["labelSelector"] == found["Deployment"]["spec"]["selector"]


def test_kserve_gets_the_same_pod_in_an_inference_service() -> None:
    ours, theirs = objects(name="a", replicas=2), objects(name="a", replicas=2, kserve=True)
    assert theirs.keys() == {"InferenceService", "NetworkPolicy"}
    predictor = theirs["InferenceService"]["spec"]["predictor"]
    assert (predictor.pop("minReplicas"), predictor.pop("maxReplicas")) == (2, 2)
    selected = theirs["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= predictor.pop("labels").items()
    assert predictor["containers"][0].pop("name") == "kserve-container"
    pod = pod_of(ours)
    assert pod["containers"][0].pop("name") == "server"
    assert predictor == pod


def test_the_pod_serves_the_address_that_was_found_under_the_asked_name() -> None:
    (container,) = pod_of(objects(name="assistant"))["containers"]
    words = container["command"][container["command"].index("sh", 3) + 1 :]
    assert words[:3] == ["model", "serve", model_of(1).key]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == {
        "--store": "s3://mantis/here",
        "--name": "assistant",
        "--host": "0.0.0.0",
        "--port": "8000",
    }
    assert objects()["Service"]["metadata"]["name"] == "model-0123456789ab"


@pytest.mark.parametrize("name", ["A", "-a", "a-", "a" * 33, "a.b", "a/b", "ä"])
def test_a_name_that_no_object_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of an object"):
        objects(name=name)
    longest = objects(name="a" * 32)["Deployment"]["metadata"]["name"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", longest)
    assert len(longest) + len("-1234567890-abcde") <= 63


def test_weights_outside_of_the_store_are_refused() -> None:
    empty = model_of(0).model_copy(update={"files": ()})
    with pytest.raises(ConfigError, match=r"holds no \*\.safetensors"):
        rendered(STORE, empty, DeploymentRequest(image="i"))


Deploy = Callable[..., str]


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    monkeypatch.delenv("MANTIS_IMAGE", raising=False)

    def call(*arguments: object) -> str:
        return CliRunner().invoke(app, ["model", "deploy", *map(str, arguments)]).output

    return call


def test_no_image_and_a_store_that_pods_cannot_reach_are_refused(deploy: Deploy, tmp_path: Path) -> None:
    for words, problem in (
        (("--store", "s3://mantis"), "A server needs an image."),
        (("--store", tmp_path.as_uri(), "--image", "i"), "pods of a server cannot reach it"),
        (("--store", "s3://mantis", "--image", "i", "--name", "A"), "is no name of an object"),
        (("--store", "s3://mantis", "--image", "i", "--platform", tmp_path / "none.yaml"), "Name a YAML file of steps"),
    ):
        said = " ".join(deploy("models/abc", *words).split())
        assert problem in said
        assert "Traceback" not in said


def test_the_table_of_sizing_has_the_figures_of_the_code() -> None:
    """docs/reference/sizing.md, "A server"."""
    from components.serving.deployment.server_needs import needs_of_model
    from components.training.sizing.estimate import shapes

    text = (ROOT / "docs" / "reference" / "sizing.md").read_text().partition("## A server")[2]
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| (mantis-\w+) \| (\S+) GB \| (\S+) GB \| (\S+) GB \|", text, re.M)
    }
    wanted = {}
    for name, shape in shapes().items():
        if not name.startswith("mantis-"):
            continue
        model = model_of(int(shape.parameters))
        figures = [needs_of_model(model, gpus=1).scratch, *(needs_of_model(model, gpus=n).memory for n in (0, 1))]
        wanted[name] = tuple(f"{figure / 1e9:.0f}" for figure in figures)
    assert rows == wanted
