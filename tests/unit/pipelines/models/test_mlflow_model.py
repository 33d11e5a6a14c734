"""What MLflow calls refuses rows that it cannot ask, and finds the model that was registered."""

import base64
from pathlib import Path
from typing import Any

import pandas
import pytest
from PIL import Image

from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError, InputError
from mantis.store.local import LocalStore
from pipelines.models.mlflow_model import RegisteredModel, _load_pyfunc
from tests.fixtures.serving import ANSWER_TOKENS


@pytest.fixture
def config(findable_model: Manifest, local_store: LocalStore) -> dict[str, Any]:
    return {"store": local_store.url, "key": "models/abc", "fingerprint": "abc", "max_tokens": ANSWER_TOKENS}


@pytest.fixture
def loaded(config: dict[str, Any], tmp_path: Path) -> RegisteredModel:
    return _load_pyfunc(str(tmp_path), config)


def test_rows_in_every_shape(loaded: RegisteredModel, tmp_path: Path) -> None:
    images = []
    for colour in ("red", "blue"):
        Image.new("RGB", (48, 48), colour).save(tmp_path / f"{colour}.png")
        images.append(tmp_path / f"{colour}.png")
    uri = "data:image/png;base64," + base64.b64encode(images[1].read_bytes()).decode()
    mixed = [images[0].read_bytes(), uri]
    pillow = [Image.open(each) for each in images]
    asked = "What colour is the square?"
    rows: list[dict[str, Any]] = [{"question": asked, "images": each} for each in (images, mixed, pillow)]
    first, *others = loaded.predict(rows)
    assert others == [first, first]
    assert loaded.predict([{"question": f"<image><image>{asked}", "images": images}]) == [first]
    assert loaded.predict({"question": asked, "images": images[::-1]}) != [first]
    frame = pandas.DataFrame([rows[0], {"question": asked}])
    assert loaded.predict(frame) == [first, *loaded.predict({"question": asked})]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"images": []}, "Row 0 has no text `question`"),
        ({"question": "?", "temperature": 1}, "unknown fields: temperature"),
        ("What?", "unknown fields: str"),
        ({"question": "?", "images": "a.png"}, "Row 0 has images of the type str"),
        ({"question": "?", "images": ["a.png"]}, "It is 'a.png', a str"),
        ({"question": "?", "images": [Path("nowhere.png")]}, "nowhere.png cannot be shown: No such file"),
        ({"question": "?", "images": [b"GIF"]}, "image 1 cannot be shown"),
        ({"question": "?", "images": ["data:image/png;base64,?"]}, "It is no base64"),
        ({"question": "<image>?"}, "1 <image> marks and 0 images"),
    ],
)
def test_a_row_that_cannot_be_asked(loaded: RegisteredModel, row: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        loaded.predict([row])


def test_unknown_parameters(loaded: RegisteredModel) -> None:
    with pytest.raises(InputError, match="Unknown parameters: temperature"):
        loaded.predict([], {"temperature": 1})


def test_a_store_without_the_registered_model(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANTIS_STORE", (tmp_path / "other").as_uri())
    for change in ({"store": ""}, {"key": "models/abd"}, {"fingerprint": "abd"}):
        with pytest.raises(ConfigError, match="does not hold the registered model"):
            _load_pyfunc("", config | change)
