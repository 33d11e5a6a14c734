"""The real thing: a cluster by KUBECONFIG, with Kubeflow Trainer, from which the images can be pulled.

MANTIS_TEST_IMAGE    the image of the ranks, as the cluster pulls it
MANTIS_TEST_CLUSTER  the command of the test cluster, for restarts of its API server and for simulated nodes
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from components.training.launch.trainjob import TrainJobLauncher
from components.training.launch.trainjob_spec import train_job
from mantis.config.recipe import parse_recipe
from mantis.errors import NotFoundError
from mantis.logging import configure
from mantis.runs.step_runner import Run
from mantis.store.opening import open_store
from tests.helpers.kubectl import Kube, until
from tests.helpers.paths import ROOT

RUNTIME = "mantis-deepspeed-a100"  # beside the one of the overlay that is applied
MADE = "1" * 64
RECIPE = (Path(__file__).parent / "thirty-steps.yaml").read_text()


@pytest.fixture(scope="session")
def image() -> str:
    """The ranks' image, as the cluster pulls it."""
    name = os.environ.get("MANTIS_TEST_IMAGE")
    if not name:
        pytest.skip("MANTIS_TEST_IMAGE is not set: no image for the cluster's pods (`make images`, then push it)")
    return name


@pytest.fixture(scope="session")
def test_cluster() -> Callable[..., None]:
    """The command of the test cluster."""
    command = os.environ.get("MANTIS_TEST_CLUSTER")
    if not command:
        pytest.skip("MANTIS_TEST_CLUSTER is not set: nobody to restart the API server and to simulate nodes")

    def call(*arguments: str) -> None:
        subprocess.run([command, *arguments], check=True, capture_output=True)

    return call


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace of its own, under Pod Security "restricted"."""
    name = f"mantis-test-{uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.core.create_namespace({"metadata": {"name": name, "labels": labels}})
    yield name
    kube.core.delete_namespace(name)


@pytest.fixture(scope="module")
def gpu_nodes(kube: Kube, platform: float, test_cluster: Callable[..., None]) -> Iterator[Any]:
    """Sixteen nodes of eight A100 with a network card each, and the a100 overlay's runtime under its own name."""
    built = kube.kubectl("kustomize", ROOT / "manifests" / "overlays" / "a100")
    (runtime,) = [item for item in yaml.safe_load_all(built) if item["kind"] == "ClusterTrainingRuntime"]
    runtime["metadata"]["name"] = RUNTIME
    kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(runtime))
    test_cluster("fake-nodes", "16", "--resource", "rdma/hca_shared_devices_a=1", "--seconds", "15")
    yield
    test_cluster("fake-nodes", "0")
    kube.kubectl("delete", "clustertrainingruntime", RUNTIME)


class Following:
    """The launcher in a thread, so that a test can look at the job meanwhile."""

    def __init__(self, run: Any) -> None:
        self.error: BaseException | None = None
        self.name = train_job(run, MADE)["metadata"]["name"]
        self._thread = threading.Thread(target=self._work, args=(run,), daemon=True)
        self._thread.start()

    def _work(self, run: Any) -> None:
        try:
            TrainJobLauncher().launch(run, f"checkpoints/{MADE}")
        except BaseException as error:
            self.error = error

    def join(self) -> BaseException | None:
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self.error


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    """Wait for words in the launcher's log; returns the whole log.

    The launcher logs in a thread. pytest's captured stderr can lose a line that is written while a test reads it.
    """
    configure()

    def wait(words: str, seconds: float = 60) -> str:
        until(f"{words!r} in the log", lambda: words in caplog.text, seconds)
        return caplog.text

    return wait


RunInBucket = Callable[..., Run]


@pytest.fixture
def run_in_bucket(services: dict[str, str], image: str) -> RunInBucket:
    """Make a run for the launcher alone, with a store that exists."""

    def make(overrides: dict[str, str] | None = None) -> Run:
        given = {"cluster.image": image} | (overrides or {})
        recipe = parse_recipe(RECIPE, origin="test", overrides=given)
        return Run(id=f"test-{uuid4().hex[:8]}", store=open_store("s3://mantis/test"), recipe=recipe)

    return make


class Training:
    """The recipe of thirty steps in a store of its own, up to its mixture; then the launcher, as often as one likes."""

    def __init__(self, kube: Kube, image: str, logs: Path, overrides: dict[str, str]) -> None:
        from components.data.step import assemble, prepare, resolve_subsets
        from components.training.step import training_task

        recipe = parse_recipe(RECIPE, origin="test", overrides={"cluster.image": image} | overrides)
        store = open_store(f"s3://mantis/test-{uuid4().hex[:8]}")
        self.kube, self.run, self.store, self.logs = (
            kube,
            Run(id=recipe.default_run_id(), store=store, recipe=recipe),
            store,
            logs,
        )
        store.put(self.run.key("recipe.yaml"), recipe.to_yaml().encode())
        mixture = assemble(self.run, [prepare(self.run, subset) for subset in resolve_subsets(self.run)])
        self.made = training_task(self.run, mixture).fingerprint()
        self.prefix = f"checkpoints/{self.made}"
        self.started: list[subprocess.Popen[bytes]] = []

    @property
    def job(self) -> str:
        from components.training.launch.trainjob_spec import job_name, training_of

        return job_name(self.run.id, training_of(self.store.url, self.made))

    def start(self) -> "subprocess.Popen[bytes]":
        log = (self.logs / f"launcher-{len(self.started)}.log").open("wb")
        command = [sys.executable, "-m", "tests.helpers.train_stored_run", self.store.url, self.run.id]
        self.started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT))
        return self.started[-1]

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.logs.glob("launcher-*.log")))

    def steps_saved(self) -> int:
        from mantis.artifacts.checkpoint import committed

        return max(committed(self.store, self.prefix), default=0)

    def wait_for_step(self, step: int, seconds: float = 240) -> None:
        def there() -> bool:
            assert self.started[-1].poll() is None, self.said()
            return self.steps_saved() >= step

        self.kube.until(f"a checkpoint of step {step} of {self.job}", there, seconds)

    def ends(self, status: int = 0, seconds: float = 300) -> str:
        assert self.started[-1].wait(seconds) == status, self.said()
        return self.said()

    def losses(self) -> list[tuple[int, float]]:
        import json

        text = self.store.get(f"{self.prefix}/metrics.jsonl").decode()
        return [(row["step"], row["loss"]) for row in map(json.loads, text.splitlines())]

    def is_done(self) -> bool:
        try:
            return bool(self.store.get(f"{self.prefix}/manifest.json"))
        except NotFoundError:
            return False

    def left_over(self) -> str:
        kubectl = self.kube.kubectl
        return "".join(
            kubectl("-n", "mantis", "get", kind, "--no-headers", "--ignore-not-found", "-l", label)
            for kind, label in (
                ("pods", f"jobset.sigs.k8s.io/jobset-name={self.job}"),
                ("jobs", f"jobset.sigs.k8s.io/jobset-name={self.job}"),
            )
        ) + self.kube.kubectl(
            "-n", "mantis", "get", "trainjobs,jobsets", self.job, "--no-headers", "--ignore-not-found"
        )


MakeTraining = Callable[..., Training]


@pytest.fixture
def training(kube: Kube, services: dict[str, str], image: str, tmp_path: Path) -> Iterator[MakeTraining]:
    """Make a training from overrides of the recipe; its processes and its job end with the test."""
    made: list[Training] = []

    def make(overrides: dict[str, str] | None = None) -> Training:
        logs = tmp_path / str(len(made))
        logs.mkdir()
        made.append(Training(kube, image, logs, overrides or {}))
        return made[-1]

    yield make
    for one in made:
        for process in one.started:
            process.kill()
            process.wait()
        kube.kubectl("-n", "mantis", "delete", "trainjob", one.job, "--ignore-not-found", "--wait=false")
