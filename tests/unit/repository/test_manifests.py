"""The manifests as files: what pods may do, whom they reach, and how long they have to save."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.helpers.paths import ROOT
from tests.helpers.restricted_pods import assert_restricted
from tests.helpers.yaml_files import documents as documents_of

MANIFESTS = ROOT / "manifests"
WORKLOADS = {"Deployment", "StatefulSet", "Job", "CronJob", "ClusterTrainingRuntime", "Pod"}
# The Secrets that make-secrets copies to the namespaces of the steps.
COPIED = {"mantis-store", "mantis-store-results", "mantis-mlflow", "mantis-authorities"}
FORBIDDEN = {"secrets", "pods/exec", "pods/attach", "serviceaccounts/token", "*"}


def documents(folder: str) -> list[dict[str, Any]]:
    """Every object in the files of a folder and of its folders; files of patches hold lists, and no object."""
    files = sorted((MANIFESTS / folder).rglob("*.yaml"))
    assert files
    found = [document for file in files for document in documents_of(file.read_text())]
    return [document for document in found if isinstance(document, dict) and "kind" in document]


def patched(overlay: str) -> dict[str, Any]:
    """Path -> value of the patches that an overlay makes to the runtime."""
    operations = yaml.safe_load((MANIFESTS / "overlays" / overlay / "runtime.yaml").read_text())
    return {each["path"].rpartition("/spec/template/spec/")[2]: each.get("value") for each in operations}


def named(folder: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = [
        document for document in documents(folder) if document["kind"] == kind and document["metadata"]["name"] == name
    ]
    return found


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Every specification of a pod in an object, however deep it lies."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for each in value.values():
            yield from pods(each)
    elif isinstance(value, list):
        for each in value:
            yield from pods(each)


def base_pods() -> list[Any]:
    found = [document for document in documents("base") if document["kind"] in WORKLOADS]
    assert {document["metadata"]["name"] for document in found} >= {"minio", "mlflow", "mantis-deepspeed"}
    return [
        pytest.param(pod, id=f"{document['kind']}-{document['metadata']['name']}")
        for document in found
        for pod in pods(document)
    ]


@pytest.mark.parametrize("pod", base_pods())
def test_a_pod_is_restricted(pod: dict[str, Any]) -> None:
    """The rules of PodSecurity `restricted`, and a root file system that nobody writes."""
    assert_restricted(pod)


@pytest.mark.parametrize("overlay", ["a100", "local"])
def test_an_overlay_loosens_no_security_context(overlay: str) -> None:
    for path, value in patched(overlay).items():
        assert "securityContext" not in path + str(value)
        assert "serviceAccount" not in path + str(value)


@pytest.mark.parametrize(("folder", "namespace"), [("base", "mantis"), ("steps", "mantis-steps")])
def test_all_traffic_that_is_not_listed_is_denied(folder: str, namespace: str) -> None:
    policies = [document for document in documents(folder) if document["kind"] == "NetworkPolicy"]
    denying = [policy for policy in policies if policy["spec"].keys() == {"podSelector", "policyTypes"}]
    assert [policy["spec"] for policy in denying] == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]
    assert denying[0]["metadata"]["namespace"] == namespace


def test_the_policy_of_kfps_steps_selects_our_steps_alone() -> None:
    policy = named("steps/kfp-network", "NetworkPolicy", "mantis-steps")["spec"]
    for compiled in (ROOT / "pipelines" / "compiled").glob("*.yaml"):
        executors = documents_of(compiled.read_text())[1]["platforms"]["kubernetes"]["deploymentSpec"]
        for executor in executors["executors"].values():
            assert executor["podMetadata"]["labels"].items() >= policy["podSelector"]["matchLabels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy


def test_no_policy_opens_everything() -> None:
    """A rule without peers must name ports, and one without ports must name peers."""
    policies = [document for document in documents(".") if document["kind"] == "NetworkPolicy"]
    assert len(policies) > 6
    for policy in policies:
        for rules, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(rules, []):
                assert rule.get(peers) or rule.get("ports"), policy["metadata"]["name"]


def test_ranks_are_reached_by_ranks_alone() -> None:
    ranks = {"podSelector": {"matchLabels": {"mantis-kfp/role": "rank"}}}
    spec = named("base", "NetworkPolicy", "ranks-meet")["spec"]
    assert spec["ingress"] == [{"from": [ranks]}]
    assert spec["egress"] == [{"to": [ranks]}]
    (pod,) = pods(named("base", "ClusterTrainingRuntime", "mantis-deepspeed"))
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "mantis-trainer"


def test_services_and_policies_find_servers_by_a_label_that_ranks_lack() -> None:
    """A pod of a job with this label would get a share of all requests, passwords included."""
    services = [document for document in documents("base") if document["kind"] == "Service"]
    assert {service["spec"]["selector"]["mantis-kfp/service"] for service in services} == {"minio", "mlflow"}
    policies = [document for document in documents(".") if document["kind"] == "NetworkPolicy"]
    peers = [rule.get("to") for policy in policies for rule in policy["spec"].get("egress", ())]
    assert "app.kubernetes.io/name" not in str(peers)
    for document in documents("base"):
        if document["kind"] in ("Job", "ClusterTrainingRuntime"):
            assert "mantis-kfp/service" not in str(document)


def test_the_admission_policies_deny() -> None:
    """tests/cluster/test_admission.py tries them; a binding that warns would deny nothing."""
    bindings = [each for each in documents("base") if each["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert {each["spec"]["policyName"] for each in bindings} == {"mantis-trainjobs", "mantis-pods"}
    for binding in bindings:
        assert binding["spec"]["validationActions"] == ["Deny"]
        policy = named("base", "ValidatingAdmissionPolicy", binding["spec"]["policyName"])
        assert policy["spec"]["failurePolicy"] == "Fail"
        parameters = binding["spec"].get("paramRef")
        assert ("paramKind" in policy["spec"]) == bool(parameters)
        if parameters:
            assert parameters["parameterNotFoundAction"] == "Deny"
            assert named("base", "ConfigMap", parameters["name"])["data"].keys() == {"registries", "digests", "keys"}


def test_no_role_of_ours_reads_secrets_or_enters_pods() -> None:
    roles = [document for document in documents(".") if document["kind"] in ("Role", "ClusterRole")]
    assert {"mantis-launcher", "mantis-bootstrap"} <= {role["metadata"]["name"] for role in roles}
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["verbs"]
            if role["metadata"]["name"] == "mantis-bootstrap" and rule["verbs"] != ["create"]:
                assert set(rule["resourceNames"]) == COPIED
                assert set(rule["verbs"]) <= {"get", "patch"}
            elif role["metadata"]["name"] != "mantis-bootstrap":
                assert not FORBIDDEN & set(rule["resources"]), role["metadata"]["name"]


@pytest.mark.parametrize(("overlay", "seconds"), [("", 120), ("a100", 600)])
def test_ranks_have_the_time_that_torchrun_gives_them(overlay: str, seconds: int) -> None:
    (pod,) = pods(named("base", "ClusterTrainingRuntime", "mantis-deepspeed"))
    container = pod["containers"][0]
    grace, first = pod["terminationGracePeriodSeconds"], container["env"][0]
    assert first["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    waits = first["value"]
    if overlay:
        changes = patched(overlay)
        grace, waits = changes["terminationGracePeriodSeconds"], changes["containers/0/env/0/value"]
    assert grace == seconds
    assert seconds - 30 <= int(waits) < seconds


def test_a_rank_on_a_whole_node_uses_no_more_than_it_requested() -> None:
    """A kubelet that runs short of memory or disk evicts first what uses more."""
    changes = patched("a100")
    asked = changes["containers/0/resources"]
    for resource in ("memory", "ephemeral-storage"):
        assert asked["requests"][resource] == asked["limits"][resource]
    scratch = int(changes["volumes/2/emptyDir/sizeLimit"].removesuffix("Gi"))
    assert scratch < int(asked["limits"]["ephemeral-storage"].removesuffix("Gi"))
    (checkpoint, disk), *_ = sorted(disks_of_sizing(), reverse=True)
    assert scratch * 2**30 > (disk + 20) * 1e9 > checkpoint * 1e9


def disks_of_sizing() -> list[tuple[float, float]]:
    """A checkpoint, and the scratch of all nodes together, in GB, of each model in docs/reference/sizing.md."""
    text = (ROOT / "docs" / "reference" / "sizing.md").read_text()
    found = re.findall(r"^\|(?:[^|]*\|){5} (\d+) GB \| (\d+) GB \|", text, re.MULTILINE)
    assert len(found) > 8
    return [(float(checkpoint), float(disk)) for checkpoint, disk in found]


def test_the_namespaces_enforce_the_restricted_profile() -> None:
    for folder, name in (("base", "mantis"), ("steps", "mantis-steps")):
        labels = named(folder, "Namespace", name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_runs_of_kfp_launch_trainings_with_and_without_a_typed_account() -> None:
    """KFP empties the field of the account when a run is cloned; then its default account counts."""
    binding = named("steps/kfp", "RoleBinding", "mantis-steps-launch-kubeflow")
    assert binding["metadata"]["namespace"] == "mantis"
    assert binding["roleRef"]["name"] == "mantis-launcher"
    assert [(each["name"], each["namespace"]) for each in binding["subjects"]] == [
        ("mantis-steps", "kubeflow"),
        ("pipeline-runner", "kubeflow"),
    ]


def test_lists_hold_the_defaults_of_the_server() -> None:
    """kubectl compares these lists as a whole. Without the defaults, applying again would change the object."""
    policies = [document["spec"] for document in documents(".") if document["kind"] == "NetworkPolicy"]
    rules = [rule for spec in policies for way in ("ingress", "egress") for rule in spec.get(way, ())]
    ports = [port for rule in rules for port in rule.get("ports", ())]
    assert ports
    assert all("protocol" in port for port in ports)
    admission = [each["spec"] for each in documents(".") if each["kind"] == "ValidatingAdmissionPolicy"]
    resources = [rule for spec in admission for rule in spec["matchConstraints"]["resourceRules"]]
    assert [rule["scope"] for rule in resources] == ["*"] * len(resources)
    assert resources
    sets = [document["spec"] for document in documents(".") if document["kind"] == "StatefulSet"]
    claims = [claim for spec in sets for claim in spec["volumeClaimTemplates"]]
    assert claims
    for claim in claims:
        assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
        assert claim["spec"]["volumeMode"] == "Filesystem"
        assert claim["status"] == {"phase": "Pending"}
