"""The users that `make-users` creates, on a real MinIO: each key writes where its steps write, and nowhere else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mantis.artifacts.layout import RESPONSES, RUN, TOP_FOLDERS, ArtifactKind
from mantis.artifacts.store_addresses import check_store
from mantis.errors import StoreError
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store
from pipelines.execution.preflight import preflight
from tests.fixtures.stores import running_minio
from tests.helpers import bootstrap

KEYS = {"store": bootstrap.WRITER, "store-results": bootstrap.RESULTS, "store-read": bootstrap.READER}
RESULTS = (ArtifactKind.EVALUATION, ArtifactKind.EXTERNAL_MODEL, ArtifactKind.REPORT, ArtifactKind.DEPLOYMENT)
Opened = Callable[..., ObjectStore]


@pytest.fixture(scope="module")
def make_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The script of the Job, after it set up a MinIO."""
    with running_minio(tmp_path_factory.mktemp("minio")) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        yield bootstrap.make_users(tmp_path_factory.mktemp("secrets"), url)


@pytest.fixture
def opened(make_users: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Open a store with the key of a user."""

    def with_key_of(user: str, url: str = "s3://mantis/team") -> ObjectStore:
        identity, password = KEYS[user]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", password)
        return open_store(url)

    return with_key_of


def takes(store: ObjectStore, folder: str) -> bool:
    """Whether a key may write and delete below a folder of a store."""
    try:
        store.put(f"{folder}/probe/any", b"any")
        store.delete(f"{folder}/probe/any")
    except StoreError:
        return False
    return True


@pytest.mark.parametrize("url", ["s3://mantis", "s3://mantis/team/a"])
def test_each_key_writes_where_its_steps_write(make_users: ModuleType, opened: Opened, url: str) -> None:
    expected = {
        "store": TOP_FOLDERS,
        "store-results": {*(kind.folder for kind in RESULTS), RUN.folder, RESPONSES.folder},
        "store-read": frozenset(),
    }
    assert set(make_users.RESULT_FOLDERS) == expected["store-results"]
    for user, folders in expected.items():
        store = opened(user, url)
        assert {folder for folder in TOP_FOLDERS if takes(store, folder)} == folders, user


def test_a_step_that_evaluates_replaces_no_weights(opened: Opened) -> None:
    """The attack: a planted answer or benchmark takes over `evaluate`, and finds a key that overwrites models."""
    weights = "models/abc/model.safetensors"
    opened("store", "s3://mantis").put(weights, b"weights")
    store = opened("store-results", "s3://mantis")
    assert store.get(weights) == b"weights"
    for attack in (lambda: store.put(weights, b"others"), lambda: store.delete(weights)):
        with pytest.raises(StoreError):
            attack()
    assert store.get(weights) == b"weights"


def test_the_key_of_results_is_enough_to_start_a_run(opened: Opened) -> None:
    store = opened("store-results")
    check_store(store)
    run = preflight("demo", {}, "", store.url)
    assert store.stat(run.key("recipe.yaml")) is not None


def test_the_reader_starts_nothing(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        check_store(opened("store-read"))
