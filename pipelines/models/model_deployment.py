"""Renders a server of the model that a person names, for `mantis model deploy`."""

import json

from components.serving.deployment.deployment_request import DeploymentRequest, check_request
from components.serving.deployment.deployment_spec import rendered
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError, NotFoundError
from mantis.generation.answering_models import ChatModel
from mantis.store.base import ObjectStore
from pipelines.models.find_model import find_model


def deployment_of(store: ObjectStore, named: str, asked: DeploymentRequest) -> str:
    """The objects that serve the model `named`, as YAML. They name its address, so another model needs another call.

    Raises:
        ConfigError: as `find_model` and `rendered` raise it; or the model lies outside of the store, or transformers
            cannot ask it about images.
        InputError: as `find_model`.
    """
    check_request(store, asked)
    model = find_model(store, named)
    if model.manifest.kind is ArtifactKind.EXTERNAL_MODEL:
        raise ConfigError(
            f"{named!r} lies outside of {store.url}, and pods of a server read this store alone.",
            remedy="Import the model: mantis model import FOLDER --family FAMILY.",
        )
    if isinstance(model, ChatModel):
        _check_answers(store, model.manifest)
    return rendered(store, model.manifest, asked)


def _check_answers(store: ObjectStore, model: Manifest) -> None:
    """Check that fetched weights are those of a whole model: towers and language models are fetched, too."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    try:
        kind = json.loads(store.get(f"{model.key}/config.json")).get("model_type")
    except (NotFoundError, ValueError, AttributeError):
        kind = None
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ConfigError(
            f"{model.key} is a model of the kind {kind!r}, which answers no questions about images.",
            remedy="Name the model of a run, or whole weights. `mantis model list` shows the role of each.",
        )
