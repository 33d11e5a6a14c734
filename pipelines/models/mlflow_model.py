"""Loads a registered model for plain MLflow: `mlflow.pyfunc.load_model("models:/demo@newest")`.

The file MLmodel names this module, the model's key in the store and its fingerprint. MLflow calls `_load_pyfunc`.
"""

import math
from collections.abc import Mapping
from typing import Any

from mantis.artifacts.manifest import read_manifest
from mantis.errors import ConfigError, InputError
from mantis.generation.answering_models import ChatModel, FamilyModel
from mantis.store.base import ObjectStore
from mantis.store.opening import default_store_url, open_store
from pipelines.models.asked_model import AskedModel, ImageLike, ImageQuestion
from pipelines.models.find_model import find_model

FIELDS = {"question", "images"}


class RegisteredModel:
    """What MLflow calls. Rows have `question` and `images`; a path in `images` is a pathlib.Path, no text."""

    def __init__(self, model: AskedModel) -> None:
        self._model = model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """Answer every row of a data frame, a list of dictionaries, or a dictionary. Returns the answers.

        Raises:
            InputError: a row has no question, an unknown field, or an image that cannot be read.
        """
        if params:
            raise InputError(
                f"Unknown parameters: {', '.join(sorted(params))}.",
                remedy='Answers are greedy. Limit them with load_model(..., model_config={"max_tokens": 16}).',
            )
        return self._model.ask_all([_asked(row, place) for place, row in enumerate(_rows(model_input))])


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> RegisteredModel:
    """Load the model that the file MLmodel describes. MLflow calls this function.

    Args:
        path: the folder of MLmodel.
        model_config: `store` (empty: MANTIS_STORE, else ./.mantis), `key`, `fingerprint` and `max_tokens`.

    Raises:
        ConfigError: the store does not hold the model.
    """
    config = dict(model_config or {})
    store = open_store(config["store"] or default_store_url())
    found = _found(store, config["key"], config["fingerprint"])
    return RegisteredModel(AskedModel(store, found, name=config["key"], max_tokens=int(config["max_tokens"])))


def _found(store: ObjectStore, key: str, fingerprint: str) -> FamilyModel | ChatModel:
    manifest = read_manifest(store, key)
    if manifest is None or manifest.fingerprint != fingerprint:
        raise ConfigError(
            f"{store.url} does not hold the registered model {key}.",
            remedy='Set MANTIS_STORE to the store of its run, or call load_model(..., model_config={"store": URL}).',
        )
    return find_model(store, key)


def _rows(model_input: Any) -> list[Any]:
    if hasattr(model_input, "to_dict"):  # a data frame
        return list(model_input.to_dict("records"))
    return [model_input] if isinstance(model_input, Mapping) else list(model_input)


def _asked(row: Any, place: int) -> ImageQuestion:
    unknown = sorted(set(row) - FIELDS) if isinstance(row, Mapping) else [type(row).__name__]
    if unknown or not isinstance(row.get("question"), str):
        raise InputError(
            f"Row {place} has no text `question`, or unknown fields: {', '.join(map(str, unknown)) or 'none'}.",
            remedy='Give rows such as {"question": "What differs?", "images": [Path("a.jpg"), Path("b.jpg")]}.',
        )
    return ImageQuestion(row["question"], _images(row.get("images"), place))


def _images(given: Any, place: int) -> list[ImageLike]:
    if given is None or (isinstance(given, float) and math.isnan(given)):  # a data frame's mark of a missing value
        return []
    if isinstance(given, list | tuple) or hasattr(given, "tolist"):
        return list(given)
    raise InputError(
        f"Row {place} has images of the type {type(given).__name__}.",
        remedy='Give a list, e.g. [Path("a.jpg")]. It holds paths, bytes, images of Pillow or data URIs.',
    )
