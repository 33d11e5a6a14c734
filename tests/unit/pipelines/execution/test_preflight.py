"""What is refused before anything is computed: it would be found after hours, by the step that needs it."""

import pytest

from components.serving.deployment.deployment_request import check_request
from components.serving.step import request_of
from components.training.checkpointing.training_summary import write_summary
from components.training.step import training_task
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, commit_manifest
from mantis.errors import ConfigError, InputError, MantisError, StoreError
from mantis.runs.records import State, StepRecord, read_record
from mantis.store.local import LocalStore
from pipelines.execution import preflight as module
from pipelines.execution.preflight import check_launcher, preflight
from tests.fixtures.api_server import Kubeconfig
from tests.fixtures.trainjobs import TrainjobRun

MIRRORED = {"evaluation.source": "mirror", "evaluation.benchmarks": "[blink, nlvr2]"}
ON_A_CLUSTER = {"training.launcher": "trainjob", "cluster.image": "mantis/train:1"}


@pytest.fixture(autouse=True)
def _no_image_of_this_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANTIS_IMAGE", raising=False)


def test_the_demo_wants_neither_mirrors_nor_a_cluster(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    assert read_record(local_store, preflight("demo", {}, "", local_store.url).id, "preflight").state is State.DONE


def test_benchmarks_that_were_not_mirrored_are_named_all_at_once(local_store: LocalStore) -> None:
    with pytest.raises(InputError, match="no copy of blink, nlvr2") as caught:
        preflight("demo", MIRRORED, "", local_store.url)
    assert "mantis benchmark fetch blink; mantis benchmark fetch nlvr2." in caught.value.remedy


def test_a_published_benchmark_is_not_generated(local_store: LocalStore) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.source = 'generated', but nlvr2 cannot"):
        preflight("demo", {"evaluation.benchmarks": "[nlvr2, demo-multi]"}, "", local_store.url)


def test_data_preparation_wants_neither_benchmarks_nor_a_launcher(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    run = preflight("demo", MIRRORED | ON_A_CLUSTER, "", local_store.url, evaluates=False)
    assert read_record(local_store, run.id, "preflight").state is State.DONE


def test_a_model_that_is_not_there_is_refused_first(local_store: LocalStore) -> None:
    with pytest.raises(MantisError, match="no committed artifact"):
        preflight("demo", {}, "named", local_store.url, model=local_store.uri("models/0123"))
    with pytest.raises(ConfigError, match="s3://elsewhere/models/0123 is not an address of the store"):
        preflight("demo", {}, "named", local_store.url, model="s3://elsewhere/models/0123")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("put", "The disk is full"),
        ("get", "gives back other bytes than were written"),
        ("delete", "The account may not delete"),
    ],
)
def test_a_store_that_does_not_work_is_refused_and_nothing_is_recorded(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    tried: list[str] = []

    def refuse(_: LocalStore, key: str, *__: bytes) -> bytes:
        tried.append(key)
        if fault == "get":
            return b"other"
        raise StoreError(f"{words}.", remedy="Look at it.")

    monkeypatch.setattr(LocalStore, fault, refuse)
    with pytest.raises(StoreError, match=words):
        preflight("demo", {}, "named", local_store.url)
    (probe,) = tried
    assert {entry.key for entry in local_store.list("")} <= {probe}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"training.nodes": "2"}, r"training\.nodes = 2"),
        ({"training.launcher": "trainjob"}, "pods of a TrainJob cannot reach it"),
    ],
)
def test_a_launcher_that_cannot_do_it(local_store: LocalStore, overrides: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        preflight("demo", overrides, "", local_store.url)


def test_a_job_without_an_image(trainjob_run: TrainjobRun) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.image = ''"):
        check_launcher(trainjob_run({"cluster.image": "''"}))


def test_no_cluster_and_one_that_is_away(
    trainjob_run: TrainjobRun, kubeconfig: Kubeconfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLUSTER_SECONDS", 0.0)
    kubeconfig(9)
    with pytest.raises(ConfigError, match=r"launcher = 'trainjob': The API server does not answer") as caught:
        check_launcher(trainjob_run())
    assert "KUBECONFIG" in caught.value.remedy
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    with pytest.raises(ConfigError, match="no cluster is configured"):
        check_launcher(trainjob_run())


def test_where_the_checkpoint_is_whole_no_cluster_is_wanted(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    run = preflight("demo", ON_A_CLUSTER, "", local_store.url, evaluates=False)
    made_by = MadeBy(run=run.id, step="assemble", revision=1, config_hash="", code_version="", image_digest="")
    mixture = Manifest(kind=ArtifactKind.MIXTURE, key="mixtures/0123", fingerprint="0123", made_by=made_by)
    commit_manifest(local_store, mixture)
    record = StepRecord(step="assemble", state=State.DONE, started="2026-01-01", key=mixture.key)
    local_store.put(run.key("steps/assemble.json"), record.model_dump_json().encode())
    with pytest.raises(ConfigError, match="cannot reach"):
        preflight("demo", ON_A_CLUSTER, "", local_store.url)
    task = training_task(run, mixture)
    write_summary(local_store, task.address(), {})
    preflight("demo", ON_A_CLUSTER, "", local_store.url)


def test_parts_that_the_family_lacks_are_refused_before_anything_is_computed(local_store: LocalStore) -> None:
    overrides = {"model.family": "fuyu", "training.parts": "{vision: {learning_rate: 1.0e-6}}"}
    with pytest.raises(ConfigError, match=r"training\.parts names vision, but a model of family fuyu has no such part"):
        preflight("demo", overrides, "", local_store.url)


def test_a_server_that_no_pod_could_be_is_refused_at_once(local_store: LocalStore, trainjob_run: TrainjobRun) -> None:
    """And not by the last step, after hours. Data preparation deploys nothing."""
    overrides = {"cluster.deploy": "true", "cluster.image": "mantis/train:1"}
    with pytest.raises(ConfigError, match="pods of a server cannot reach it"):
        preflight("demo", overrides, "", local_store.url)
    preflight("demo", overrides, "", local_store.url, evaluates=False)
    run = trainjob_run({"cluster.image": "''"})
    with pytest.raises(ConfigError, match="A server needs an image"):
        check_request(run.store, request_of(run, {}))
