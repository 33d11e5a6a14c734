"""A real Kubeflow Pipelines 2.17, with MinIO, MLflow and Kubeflow Trainer in the cluster of KUBECONFIG.

MANTIS_KFP_HOST       the address of its UI, which passes the API on, e.g. http://localhost:8080
MANTIS_KFP_NAMESPACE  where it runs the steps: kubeflow, unless said otherwise
MANTIS_TEST_IMAGE     the image of steps and ranks, by its digest: name@sha256:...
MANTIS_SCREENSHOTS    a folder: what the browser sees is kept there
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import kfp_server_api
import pytest

from mantis.runs.kfp_form import FORM_FIELDS
from mantis.runs.records import StepRecord, read_records
from mantis.runs.step_runner import open_run
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store
from pipelines.execution.form.form_fields import filled_in, overrides_of
from pipelines.kubeflow.submit import ENDED
from tests.helpers.kubectl import Kube
from tests.helpers.paths import ROOT

OVERLAY = ROOT / "manifests" / "overlays" / "local-kfp"
SECONDS = 2400
# A run of everything in little: ten steps of training, ten samples of each skill.
SMALL = {
    "data.generated_conversations": "160",
    "evaluation.samples_per_skill": "10",
    "training.epochs": "1",
}


class SubmittedRun(NamedTuple):
    """A run's id, ours and that of KFP."""

    ours: str
    theirs: str


@dataclass
class Kfp:
    """The server, and what a test asks of it."""

    host: str
    namespace: str
    image: str
    client: Any
    kube: Kube
    store: str
    ranks: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.ranks = {
            "training.launcher": "trainjob",
            "training.nodes": "2",
            "training.gpus_per_node": "1",
        }  # the ranks' image is that of the step which launches them

    def submit(
        self, recipe: str, *options: str, overrides: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """`mantis pipeline submit`, as a person types it."""
        given = self.ranks | (overrides or {})
        command = [sys.executable, "-m", "pipelines.cli", "pipeline", "submit", recipe, "--host", self.host]
        command += ["--namespace", self.namespace, "--image", self.image, "--store", self.store, *options]
        command += [f"--set={name}={value}" for name, value in given.items()]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "300", "NO_COLOR": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)

    def started(self, recipe: str, *options: str, overrides: dict[str, str] | None = None) -> SubmittedRun:
        """Ids of a run that was submitted: ours and KFP's."""
        done = self.submit(recipe, *options, overrides=overrides)
        assert done.returncode == 0, done.stdout + done.stderr
        words = next(line for line in done.stdout.splitlines() if line.startswith("run ")).split()
        return SubmittedRun(words[1], words[2].rsplit("/", 1)[-1])

    def ends(self, run: str, seconds: float = SECONDS) -> str:
        """The state in which KFP's run ends."""
        end = time.monotonic() + seconds
        while (state := self.state(run)) not in ENDED:
            assert time.monotonic() < end, f"run {run} is {state} after {seconds:.0f} s"
            time.sleep(3)
        return state

    def state(self, run: str) -> str:
        """The state of KFP's run. A server on a busy machine may not reach its database, and answers 500."""
        try:
            return str(self.client.get_run(run).state)
        except kfp_server_api.ApiException as error:
            if error.status < 500:
                raise
            return f"unknown: KFP answered {error.status}"

    def records(self, run: str) -> dict[str, StepRecord]:
        """What the steps of our run recorded."""
        return {record.step: record for record in read_records(self.opened, run)}

    @property
    def opened(self) -> ObjectStore:
        return open_store(self.store)

    def again(self, run: str, title: str, overrides: dict[str, str]) -> str:
        """What *Clone run* of the UI does: the same version and parameters, some fields changed; KFP's id.

        The form of a clone names no account, so KFP's default account runs it.
        """
        original = self.client.get_run(run)
        parameters = dict(original.runtime_config.parameters)
        typed = {name: parameters[name] for name in FORM_FIELDS if name in parameters}
        before = overrides_of(parameters["overrides"], typed)
        parameters |= filled_in(before | overrides, list(typed))
        version = original.pipeline_version_reference
        made = self.client.run_pipeline(
            experiment_id=original.experiment_id,
            job_name=title,
            pipeline_id=version.pipeline_id,
            version_id=version.pipeline_version_id,
            params=parameters,
            enable_caching=False,
        )
        return str(made.run_id)

    def runs_of(self, recurring: str) -> list[str]:
        """KFP's ids of what a recurring run has started, the first one first."""
        listed = self.client.list_runs(page_size=100, sort_by="created_at desc").runs or []
        return [run.run_id for run in reversed(listed) if run.recurring_run_id == recurring]

    def workflow(self, run: str) -> Any:
        """Argo's Workflow of KFP's run."""
        listed = self.kube.kubectl("-n", self.namespace, "get", "wf", "-l", f"pipeline/runid={run}", "-o", "json")
        (found,) = json.loads(listed)["items"]
        return found

    def pods(self, run: str, step: str) -> list[str]:
        """Names of the pods in which a task worked, of every item where it is in a loop."""
        workflow = self.workflow(run)
        name, nodes = workflow["metadata"]["name"], workflow["status"]["nodes"].values()
        worked = [node for node in nodes if node["type"] == "Pod" and "executor(" in node["displayName"]]
        mine = [node for node in worked if f".{step}(" in node["name"] or f".{step}." in node["name"]]
        return [f"{name}-{node['templateName']}-{node['id'].rsplit('-', 1)[-1]}" for node in mine]

    def pod(self, name: str) -> Any:
        """A pod as the API server has it."""
        return json.loads(self.kube.kubectl("-n", self.namespace, "get", "pod", name, "-o", "json"))

    def log(self, pod: str) -> str:
        """What our code said in a pod."""
        return str(self.kube.kubectl("-n", self.namespace, "logs", pod, "-c", "main", check=False))

    def summary(self, run: str) -> Any:
        """summary.json of the report."""
        return json.loads(self.opened.get(f"reports/{run}/summary.json"))

    def recipe(self, run: str) -> Any:
        """The resolved recipe, as preflight stored it."""
        return open_run(run, self.store).recipe


@pytest.fixture(scope="session")
def kfp_host() -> str:
    host = os.environ.get("MANTIS_KFP_HOST")
    if not host:
        pytest.skip("MANTIS_KFP_HOST is not set: no Kubeflow Pipelines to run on")
    return host.rstrip("/")


@pytest.fixture(scope="session")
def platform(kfp_host: str, kube: Kube) -> None:
    """MinIO, MLflow, accounts and Secrets, for the namespace of KFP's steps, too; instead of the overlay `local`."""
    kube.kubectl("-n", "mantis", "delete", "job", "make-secrets", "--ignore-not-found", check=False)
    kube.kubectl("apply", "-k", OVERLAY)
    kube.until("the Jobs of the overlay", kube.jobs_are_done, 300)


@pytest.fixture(scope="session")
def kfp(kfp_host: str, services: dict[str, str], kube: Kube) -> Kfp:
    import kfp

    image = os.environ.get("MANTIS_TEST_IMAGE", "")
    if "@sha256:" not in image:
        pytest.skip("MANTIS_TEST_IMAGE is not name@sha256:...: KFP's steps want an image by its digest")
    namespace = os.environ.get("MANTIS_KFP_NAMESPACE", "kubeflow")
    client = kfp.Client(host=kfp_host, namespace=namespace)
    store = f"s3://mantis/kfp-{uuid4().hex[:8]}"
    return Kfp(host=kfp_host, namespace=namespace, image=image, client=client, kube=kube, store=store)


@pytest.fixture(scope="session")
def little() -> dict[str, str]:
    """Settings of a small run."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def small(kfp: Kfp) -> SubmittedRun:
    """A small run that has succeeded."""
    started = kfp.started("demo", overrides=SMALL)
    assert kfp.ends(started.theirs) == "SUCCEEDED"
    return started


@pytest.fixture(scope="session")
def tracked(kfp: Kfp) -> Callable[[str], Any]:
    """The MLflow run of one of our runs."""
    from mlflow import MlflowClient

    def find(run: str) -> Any:
        client = MlflowClient()
        experiment = client.get_experiment_by_name("mantis")
        wanted = f"tags.`mantis.run` = '{run}' and tags.`mantis.store` = '{kfp.store}'"
        (found,) = client.search_runs([experiment.experiment_id], filter_string=wanted)
        return found

    return find
