import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from mantis.config.recipe import parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.base import open_store

# Short enough for every test: what a row says does not matter to it.
TURNS = [{"role": "user", "content": "<image>What is this?"}, {"role": "assistant", "content": "A picture."}]


def encoded(colour: tuple[int, int, int] = (200, 30, 30), *, form: str = "JPEG", size: tuple[int, int] = (40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


class Source:
    """A folder in raw form, built by a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def image(self, name: str, data: bytes | None = None) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded() if data is None else data)
        return name

    def row(self, name: str, *images: str, **fields: Any) -> dict[str, Any]:
        turns = [{**TURNS[0], "content": "<image>" * len(images) + "What is this?"}, TURNS[1]]
        return {"id": name, "images": list(images), "conversation": turns} | fields

    def write(self, rows: Any, name: str = "train.json") -> Path:
        (self.folder / name).write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return self.folder


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "raw")


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def run_on(tmp_path: Path) -> Callable[..., Run]:
    """A run of the demo recipe on raw data, in a store of its own."""

    def make(folder: Path | str, store: Any = None, **overrides: str) -> Run:
        text = (Path(__file__).parents[3] / "pipelines" / "recipes" / "demo.yaml").read_text()
        settings = {"data.source": json.dumps(str(folder)), "evaluation.benchmarks": "[]"} | {
            key.replace("__", "."): value for key, value in overrides.items()
        }
        recipe = parse_recipe(text, origin="demo", overrides=settings)
        return Run(id="test", store=store or open_store((tmp_path / "store").as_uri()), recipe=recipe)

    return make


@pytest.fixture
def ledger_of() -> Callable[..., list[dict[str, Any]]]:
    def read(run, manifest):
        data = run.store.get(f"{manifest.key}/ledger.parquet")
        return pq.read_table(io.BytesIO(data)).to_pylist()

    return read


@pytest.fixture
def data_of() -> Callable[..., list[dict[str, Any]]]:
    def read(run, manifest):
        from mantis.store.lance_tables import open_table

        return open_table(run.store, f"{manifest.key}/data.lance").to_table().to_pylist()

    return read
