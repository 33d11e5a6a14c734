"""A model behind an OpenAI-compatible address, as evaluation names it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError
from mantis.generation.answerer import OpenModel
from mantis.generation.answering_models import external_model
from mantis.generation.decoding import Decoding
from mantis.store.base import ObjectStore

EXAMPLE_URL = "http://127.0.0.1:8000/v1"


@dataclass(frozen=True, kw_only=True)
class EndpointModel:
    """A model behind an OpenAI-compatible address. `fields` are added to every request; a null removes a field."""

    manifest: Manifest
    url: str
    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    family: str = ""
    restricts: bool = False  # no request field for this is common to all servers
    revision: int = 1  # as in FamilyModel

    def identity(self) -> dict[str, object]:
        """The request's own fields. Address and name are in the manifest's fingerprint."""
        return {"asked_by": "endpoint", "fields": self.fields}

    def open(self, store: ObjectStore, decoding: Decoding, temporary: Path) -> OpenModel[Any]:
        """Nothing is read. Requests begin with the first batch."""
        from components.evaluation.generation.chat_endpoint import OpenEndpoint

        return OpenEndpoint(
            url=self.url, name=self.name, fields=self.fields, concurrency=self.concurrency, decoding=decoding
        )


def model_behind(url: str, name: str, *, fields: dict[str, Any], concurrency: int) -> EndpointModel:
    """Describe a model behind an OpenAI-compatible address such as http://127.0.0.1:8000/v1.

    Raises:
        ConfigError: the address is no http or https URL, or it holds a user name, a query or a fragment.
    """
    parsed = urlsplit(url)
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise ConfigError(f"--endpoint {url!r} is no http:// or https:// URL.", remedy=f"E.g. {EXAMPLE_URL}.")
    if parsed.username or parsed.password or parsed.query or parsed.fragment:
        raise ConfigError(
            "--endpoint holds more than an address.",
            remedy="Put the key into the environment, as OPENAI_API_KEY. The address is written into results.",
        )
    address = url.rstrip("/").removesuffix("/chat/completions")
    manifest = external_model({"endpoint": address, "model": name}, {"endpoint": address, "model": name})
    return EndpointModel(manifest=manifest, url=address, name=name, fields=fields, concurrency=concurrency)
