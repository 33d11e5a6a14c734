"""`mantis data show` of rows in a bucket and on the hub shows the same as of rows on a disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mantis.store.base import ObjectStore, upload_tree
from pipelines.cli.main import app
from tests.fixtures.data import RawFolder, encoded
from tests.helpers.hub_server import COMMIT, hub_server

NAME = "org/cats"


def mantis(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "300", "NO_COLOR": "1"})


@pytest.fixture
def folder(raw_folder: RawFolder) -> Path:
    """A kept row, one with an unknown key, and one without its image. The only image lies below the folder."""
    raw_folder.image("images/a.jpg", encoded((0, 0, 200)))
    rows = [raw_folder.row("kept", "images/a.jpg"), raw_folder.row("key", score=1), raw_folder.row("away", "away.jpg")]
    return raw_folder.write(rows)


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The folder as the data set NAME of a hub on loopback."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    with hub_server(files, NAME) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield f"hf://datasets/{NAME}"


@pytest.fixture
def bucket(folder: Path, minio_store: ObjectStore) -> str:
    upload_tree(minio_store, "raw", folder)
    return minio_store.uri("raw")


def shown(what: object, store: Path) -> dict[str, Any]:
    done = mantis("data", "show", what, "--shown", 3, "--store", store.as_uri(), "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    found.pop("name")
    return found


@pytest.mark.parametrize("file", ["", "/train.json"])
@pytest.mark.parametrize("place", ["bucket", "hub"])
def test_rows_away_are_shown_as_rows_on_a_disk(
    place: str, file: str, folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(place)
    here, away = (shown(f"{where}{file}", tmp_path / "store") for where in (folder, url))
    subset = away["rows"][0]["subset"]
    assert subset == ("train" if file else "cats" if place == "hub" else "raw")
    for data in (here, away):
        for row in (*data["rows"], *data["reasons"]):
            row["subset"] = ""
            for each in row.get("first", ()):
                each["subset"] = ""
    assert away == here
    kept, key, missing = away["rows"]
    assert (kept["images"][0]["width"], kept["images"][0]["problem"]) == (40, "")
    assert [row["findings"][0]["reason"] for row in (key, missing)] == ["key-unknown", "image-missing"]


@pytest.mark.parametrize(
    ("what", "problem", "remedy"),
    [
        ("{bucket}/away", "away", "--source|Set a folder|Put rows"),
        ("{bucket}/away.json", "away.json", "Set a folder|Put rows"),
        ("{bucket}/images", "holds no subset", "Put rows"),
        ("s3://no-such-bucket-here/raw", "no-such-bucket-here", "bucket"),
        ("{hub}/away", "away", "Set a folder|Put rows"),
        ("hf://datasets/org/dogs", "has no public dataset org/dogs", "HF_TOKEN|name"),
        ("hf://datasets/org", "is no data set of the hub", "hf://datasets/ORG/NAME"),
        ("https://example.org/train.json", "neither a folder, a bucket nor a data set", "hf://datasets/ORG/NAME"),
    ],
)
def test_rows_that_are_not_there_are_named_with_a_remedy(
    what: str, problem: str, remedy: str, bucket: str, hub: str, tmp_path: Path
) -> None:
    done = mantis("data", "show", what.format(bucket=bucket, hub=hub), "--store", (tmp_path / "store").as_uri())
    said = " ".join(done.output.split())
    assert done.exit_code == 1, said
    assert "Traceback" not in said
    assert problem in said
    assert any(word in said for word in remedy.split("|")), said


def test_a_revision_of_a_set_is_named(hub: str, tmp_path: Path) -> None:
    done = mantis("data", "show", f"{hub}@main", "--store", (tmp_path / "store").as_uri(), "--json")
    assert json.loads(done.stdout)["name"] == f"hf://datasets/{NAME}@{COMMIT}/train.json"
