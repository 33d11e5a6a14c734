"""One process at a time has a run: the lock knows a store by its place, whatever address leads there."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from mantis.config.recipe import Recipe
from mantis.errors import ConfigError
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store
from pipelines.execution.supervisor import only_one

VARIABLES = {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_STORAGE_ACCOUNT_NAME"}


@pytest.fixture
def refused(demo_recipe: Recipe) -> Callable[..., bool]:
    """Whether the run `first` keeps a run of the other store, with this id, from starting."""

    def ask(store: ObjectStore, other: ObjectStore, run_id: str = "first") -> bool:
        with only_one(Run(id="first", store=store, recipe=demo_recipe)), ExitStack() as stack:
            try:
                stack.enter_context(only_one(Run(id=run_id, store=other, recipe=demo_recipe)))
            except ConfigError as error:
                return str(error).startswith("run = 'first' is in progress in another process.")
            return False

    return ask


@pytest.mark.parametrize(
    ("url", "server", "other", "same"),
    [
        ("s3://mantis/team", "http://minio:9000", "http://minio:9000", True),
        ("s3://mantis/team", "http://minio:9000", "http://MinIO:9000/", True),
        ("s3://mantis/team", "http://minio:9000", "http://minio:9001", False),
        ("s3://mantis/team", "http://minio:9000", "http://other:9000", False),
        ("s3://mantis/team", "https://s3.amazonaws.com", "https://s3.eu-west-1.amazonaws.com", True),
        ("s3://mantis/team", "https://s3.amazonaws.com", "http://minio:9000", False),
        ("az://mantis/team", "here", "here", True),
        ("az://mantis/team", "here", "there", False),
    ],
)
def test_a_bucket_of_the_same_name_on_another_server_is_another_store(
    url: str,
    server: str,
    other: str,
    same: bool,
    refused: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")

    def at(place: str) -> ObjectStore:
        monkeypatch.setenv(VARIABLES[url[:2]], place)
        return open_store(url)

    assert refused(at(server), at(other)) == same


def test_a_link_to_a_folder_is_the_same_store(refused: Callable[..., bool], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    store, link, other = (open_store((tmp_path / name).as_uri()) for name in ("store", "link", "other"))
    assert refused(store, link)
    assert not refused(store, other)


def test_another_run_of_the_same_store_may_begin(refused: Callable[..., bool], local_store: ObjectStore) -> None:
    assert refused(local_store, local_store)
    assert not refused(local_store, local_store, "second")
