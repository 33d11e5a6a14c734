"""What a training reports to its cluster, with Trainer's feature gate TrainJobStatus and the component job-reports."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import MakeTraining
from tests.helpers.kubectl import Kube
from tests.helpers.kustomize import built
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RUNTIME = "mantis-deepspeed-reports"  # beside the one of the overlay that is applied
TRAINER = ("-n", "kubeflow-system")
MANAGER = "deployment/kubeflow-trainer-controller-manager"


@pytest.fixture(scope="module")
def reporting(kube: Kube, platform: float, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The component with a runtime of another name, and Trainer with the gate, by the command of the guide."""
    found = built(tmp_path_factory.mktemp("lab"), resources=["overlays/local"], components=["job-reports"])
    (runtime,) = [each for each in found if each["kind"] == "ClusterTrainingRuntime"]
    runtime["metadata"]["name"] = RUNTIME
    own = [each for each in found if each["metadata"]["name"] in ("mantis-trainer", "ranks-report")]
    objects = yaml.safe_dump_all([runtime, *(each for each in own if each["kind"] != "ServiceAccount")])
    text = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    (patch,) = re.findall(r"patch deployment kubeflow-trainer-controller-manager .*\n +'(.*)'", text)
    (before,) = kube.kubectl(*TRAINER, "get", MANAGER, "-o", "jsonpath={.spec.template.spec.containers[*].args}").split(
        "\n"
    )
    kube.kubectl("apply", "-f", "-", stdin=objects)
    kube.kubectl(*TRAINER, "patch", MANAGER, "--type=json", "-p", patch)
    ready(kube)
    yield
    undo = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": json.loads(before)}]
    kube.kubectl(*TRAINER, "patch", MANAGER, "--type=json", "-p", json.dumps(undo))
    ready(kube)
    kube.kubectl("delete", "-f", "-", stdin=objects)


def ready(kube: Kube) -> None:
    """Wait for the controller, and for its webhook of runtimes."""
    kube.kubectl(*TRAINER, "rollout", "status", MANAGER, "--timeout=180s")
    runtime = kube.kubectl("get", "clustertrainingruntime", "mantis-deepspeed", "-o", "json")
    probe = json.loads(runtime)
    probe["metadata"] = {"name": "probe", "labels": probe["metadata"]["labels"]}
    create = ("create", "--dry-run=server", "-f", "-")
    kube.until(
        "the webhook answers", lambda: "created" in kube.kubectl(*create, stdin=json.dumps(probe), check=False), 120
    )


def read(kube: Kube, kind: str, name: str) -> Any:
    text = kube.kubectl("-n", "mantis", "get", kind, name, "-o", "json", check=False)
    return json.loads(text) if text.startswith("{") else {}


def test_status_and_events_tell_how_far_a_training_is(kube: Kube, reporting: None, training: MakeTraining) -> None:
    one = training({"cluster.runtime": RUNTIME})
    one.start()
    shown: list[dict[str, Any]] = []

    def ended() -> bool:
        found = read(kube, "trainjob", one.job).get("status", {}).get("trainerStatus")
        if found and found not in shown:
            shown.append(found)
        return one.started[-1].poll() is not None

    kube.until("the training has ended", ended, 600)
    said = one.ends()
    assert "does not take the reports" not in said
    percents = [each["progressPercentage"] for each in shown]
    assert percents == sorted(percents)
    assert len(percents) > 1
    figures = {metric["name"]: float(metric["value"]) for metric in shown[-1]["metrics"]}
    assert figures.keys() >= {"step", "loss", "tokens_per_second"}
    assert one.losses()[int(figures["step"]) - 1][1] == pytest.approx(figures["loss"], rel=1e-4)
    assert "estimatedRemainingSeconds" in shown[-1]

    listed = kube.kubectl("-n", "mantis", "events", "--for", f"trainjob/{one.job}", "-o", "json")
    events = {each["reason"]: each["message"] for each in json.loads(listed)["items"]}
    assert events["TrainingStarted"] == "Training begins: 30 steps."
    assert re.fullmatch(r"The checkpoint of step \d+ of 30 is committed.", events["CheckpointSaved"])


def test_a_stopped_training_tells_of_the_signal_and_then_where_it_continues(
    kube: Kube, reporting: None, training: MakeTraining
) -> None:
    one = training({"cluster.runtime": RUNTIME})
    one.start()
    one.wait_for_step(5)
    pods = kube.kubectl("-n", "mantis", "get", "pods", "-o", "name", "-l", f"jobset.sigs.k8s.io/jobset-name={one.job}")
    (first,) = [line for line in pods.splitlines() if f"{one.job}-node-0-0" in line]
    kube.kubectl("-n", "mantis", "delete", first, "--wait=false")
    one.ends()
    listed = kube.kubectl("-n", "mantis", "events", "--for", f"trainjob/{one.job}", "-o", "json")
    events = {each["reason"]: each["message"] for each in json.loads(listed)["items"]}
    stopped = re.fullmatch(r"A signal ended the training. Step (\d+) of 30 is saved.", events["TrainingStopped"])
    assert stopped
    assert events["TrainingResumed"] == f"Training continues after step {stopped[1]} of 30."


def test_the_token_of_a_rank_allows_nothing_but_new_events(kube: Kube, reporting: None) -> None:
    account = "--as=system:serviceaccount:mantis:mantis-trainer"
    may = {
        f"{verb} {resource}": kube.kubectl("-n", "mantis", "auth", "can-i", verb, resource, account, check=False)
        for verb in ("create", "get", "list", "watch", "update", "patch", "delete")
        for resource in ("events", "secrets", "pods", "trainjobs", "configmaps")
    }
    assert [what for what, answer in may.items() if answer.startswith("yes")] == ["create events"]
