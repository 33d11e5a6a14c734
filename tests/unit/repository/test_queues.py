"""The component of Kueue's queues, the one of coscheduling, and what ranks may report, as kustomize renders them."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from mantis.config.cluster_settings import ClusterSettings
from pipelines.execution.platform import Resources
from tests.helpers.kustomize import built
from tests.helpers.paths import ROOT
from tests.helpers.restricted_pods import assert_restricted

UNITS = {"": 1, "m": Decimal("0.001"), "Gi": 2**30, "Mi": 2**20}
NODES = 2  # of the quotas in manifests/kueue/queues.yaml

Objects = dict[tuple[str, str], Any]  # by kind and name; LocalQueues by kind and namespace


def rendered(folder: Path, component: str) -> Objects:
    found = built(folder, resources=["overlays/a100"], components=[component])
    return {
        (each["kind"], each["metadata"]["namespace" if each["kind"] == "LocalQueue" else "name"]): each
        for each in found
    }


@pytest.fixture(scope="module")
def queues(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return rendered(tmp_path_factory.mktemp("lab"), "kueue")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return rendered(tmp_path_factory.mktemp("lab"), "job-reports")


def amount(quantity: str) -> Decimal:
    matched = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity)
    assert matched
    return Decimal(matched[1]) * UNITS[matched[2]]


def quotas(queues: Objects) -> dict[str, Decimal]:
    (group,) = queues["ClusterQueue", "mantis"]["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    found = {each["name"]: amount(each["nominalQuota"]) for each in flavor["resources"]}
    assert list(found) == group["coveredResources"]
    return found


def rank(objects: Objects) -> Any:
    template = objects["ClusterTrainingRuntime", "mantis-deepspeed"]["spec"]["template"]["spec"]
    return template["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_the_quotas_hold_a_job_of_two_nodes_and_no_second_one(queues: Objects) -> None:
    resources = rank(queues)["containers"][0]["resources"]
    requests = {name: amount(value) for name, value in (resources["limits"] | resources["requests"]).items()}
    quota = quotas(queues)
    assert requests.keys() <= quota.keys(), "Kueue admits no pod with a request that the quota does not cover"
    assert all(NODES * requests[name] <= quota[name] for name in requests)
    for name in ("nvidia.com/gpu", "rdma/hca_shared_devices_a"):
        assert NODES * requests[name] == quota[name]


def test_the_quotas_cover_and_hold_the_steps_of_the_platform_file(queues: Objects) -> None:
    steps = yaml.safe_load((ROOT / "manifests" / "overlays" / "a100" / "steps.yaml").read_text())
    evaluate = Resources.model_validate(steps["evaluate"])
    assert evaluate.cpu is not None
    assert evaluate.memory is not None
    asked = {"cpu": amount(evaluate.cpu), "memory": amount(evaluate.memory), "nvidia.com/gpu": Decimal(evaluate.gpus)}
    assert all(value <= quotas(queues)[name] for name, value in asked.items())


def test_a_flavor_leads_to_the_nodes_of_the_runtime(queues: Objects) -> None:
    """Kueue adds its labels to the node selector of the pods: another value would leave them no node."""
    (group,) = queues["ClusterQueue", "mantis"]["spec"]["resourceGroups"]
    flavor = queues["ResourceFlavor", group["flavors"][0]["name"]]
    assert flavor["spec"]["nodeLabels"].items() <= rank(queues)["nodeSelector"].items()


def test_each_local_queue_is_in_a_namespace_that_its_cluster_queue_takes(queues: Objects) -> None:
    locals_ = {namespace: each for (kind, namespace), each in queues.items() if kind == "LocalQueue"}
    assert locals_.keys() == {"mantis", "mantis-steps"}
    (chosen,) = queues["ClusterQueue", "mantis"]["spec"]["namespaceSelector"]["matchExpressions"]
    assert chosen["operator"] == "In"
    assert locals_.keys() <= set(chosen["values"])
    assert {each["spec"]["clusterQueue"] for each in locals_.values()} == {"mantis"}
    names = {each["metadata"]["name"] for each in locals_.values()}
    for name in names:  # a recipe and a platform file can name it
        assert ClusterSettings(queue=name).queue == Resources(queue=name).queue == name


def test_trainings_come_before_evaluations_and_take_their_place(queues: Objects) -> None:
    classes = {name: each["value"] for (kind, name), each in queues.items() if kind == "WorkloadPriorityClass"}
    assert classes.keys() == {"mantis-training", "mantis-evaluation"}
    assert classes["mantis-training"] > classes["mantis-evaluation"] > 0, "a job without a class has 0"
    queue = queues["ClusterQueue", "mantis"]["spec"]
    assert queue["preemption"] == {"withinClusterQueue": "LowerPriority"}
    assert queue["queueingStrategy"] == "BestEffortFIFO"


def test_all_objects_have_the_version_of_kueue_that_is_tested(queues: Objects) -> None:
    ours = [each for each in queues.values() if "kueue" in each["apiVersion"]]
    assert len(ours) == 6
    assert {each["apiVersion"] for each in ours} == {"kueue.x-k8s.io/v1beta2"}


def test_the_guide_has_a_configuration_with_ready_pods() -> None:
    """Quotas count requests, not places on nodes: a gang that finds no places in time has to give its quota back."""
    text = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    section = text[text.index("\n## Kueue\n") : text.index("\n## MLflow for people\n")]
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)]
    (found,) = [block["waitForPodsReady"] for block in blocks if "waitForPodsReady" in block]
    assert found["blockAdmission"] is True
    assert found.keys() == {"timeout", "recoveryTimeout", "blockAdmission", "requeuingStrategy"}
    classes = {each["priority"] for block in blocks for each in block.values() if "priority" in each}
    assert classes == {"mantis-training", "mantis-evaluation"}


def test_coscheduling_makes_a_gang_of_each_job(tmp_path: Path) -> None:
    runtime = rendered(tmp_path, "own/coscheduling")["ClusterTrainingRuntime", "mantis-deepspeed"]
    assert runtime["spec"]["podGroupPolicy"] == {"coscheduling": {"scheduleTimeoutSeconds": 120}}
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert job["template"]["spec"]["template"]["spec"]["schedulerName"] == "scheduler-plugins-scheduler"


def test_a_rank_that_reports_may_create_events_and_nothing_else(reports: Objects) -> None:
    pod = rank(reports)
    assert_restricted(pod)
    assert pod["automountServiceAccountToken"] is False
    role, binding = reports["Role", "mantis-trainer"], reports["RoleBinding", "mantis-trainer"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]
    assert binding["roleRef"]["name"] == "mantis-trainer"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": pod["serviceAccountName"], "namespace": "mantis"}]


def test_a_rank_that_reports_finds_its_token_its_namespace_and_its_job(reports: Objects) -> None:
    from components.training.in_cluster.job_events import ACCOUNT, JOB

    pod = rank(reports)
    container = pod["containers"][0]
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == str(ACCOUNT)]
    assert mount["readOnly"] is True
    (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    sources = volume["projected"]["sources"]
    files = [source["serviceAccountToken"]["path"] for source in sources if "serviceAccountToken" in source]
    files += [item["path"] for source in sources for kind in source.values() for item in kind.get("items", ())]
    assert sorted(files) == ["ca.crt", "namespace", "token"]
    (variable,) = [each for each in container["env"] if each["name"] == JOB]
    assert "jobset.sigs.k8s.io/jobset-name" in variable["valueFrom"]["fieldRef"]["fieldPath"]
