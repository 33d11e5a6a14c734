"""What a person asks for when a model is deployed, and the checks that need no model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mantis.errors import ConfigError
from mantis.store.base import ObjectStore

SERVED_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")  # KServe and Kubernetes append up to 25 characters


@dataclass(frozen=True, kw_only=True)
class DeploymentRequest:
    """What a person asks for. `name` is the model's name for clients; empty names it by its fingerprint."""

    image: str
    namespace: str = "mantis"
    name: str = ""
    replicas: int = 1
    resources: Mapping[str, Any] = field(default_factory=dict)
    kserve: bool = False


def check_request(store: ObjectStore, asked: DeploymentRequest) -> None:
    """Check everything that does not depend on the model.

    Raises:
        ConfigError: no image, a name that no object can have, or a store that pods cannot reach.
    """
    if not asked.image:
        raise ConfigError(
            "A server needs an image.",
            remedy="Name the project's image: --image REF, MANTIS_IMAGE, or cluster.image in a recipe.",
        )
    if not store.url.startswith("s3://"):
        raise ConfigError(
            f"store = {store.url}: pods of a server cannot reach it.",
            remedy="Name a store with --store s3://bucket/prefix. `mantis model import` copies a model into it.",
        )
    if asked.name and not SERVED_NAME.fullmatch(asked.name):
        raise ConfigError(
            f"--name {asked.name!r} is no name of an object.",
            remedy="Use at most 32 small letters, digits and hyphens, with no hyphen at the ends.",
        )
