"""The description of a model family that is read before its code is imported.

A family's folder sets a `FamilySpec` in its `__init__.py`. That file imports neither torch nor transformers, so listing
all families stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from mantis.config.model_settings import ImageSettings
from mantis.config.training_settings import Part

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference


@dataclass(frozen=True, kw_only=True)
class ReleasedLayout:
    """How the config.json of released weights names a family. `mantis model import` reads only such weights."""

    model_type: str  # of the whole model
    vision_model_type: str | None = None  # of its vision_config, where several families share `model_type`
    text_model_type: str | None = None  # of its text_config, likewise

    def __str__(self) -> str:
        parts = [part for part in (self.vision_model_type, self.text_model_type) if part]
        return f"model_type {self.model_type}" + (f" with a {' and a '.join(parts)}" if parts else "")

    def names(self, config: Mapping[str, Any]) -> bool:
        """Whether this is the layout of a model with the configuration `config`."""
        wanted = ((config, self.model_type), (_part(config, "vision"), self.vision_model_type))
        return all(
            model_type in (None, part.get("model_type"))
            for part, model_type in (*wanted, (_part(config, "text"), self.text_model_type))
        )


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = config.get(f"{name}_config", {})
    return found


@dataclass(frozen=True, kw_only=True)
class FamilySpec:
    """One model family. docs/how-to/add-a-family.md lists the files of its folder."""

    name: str  # in recipes, and of its entry point
    package: str  # the import path of its folder
    load: Callable[[], Family]  # imports model.py
    reference: Callable[[], FamilyReference]  # imports reference.py
    small_image: ImageSettings  # the image settings of tests and of the golden file: a few patches per image
    parts: tuple[Part, ...] = ("vision", "projector", "text")  # all that `parameter_group` names
    caps: tuple[str, ...] = ()  # of the bounds of pixels in model.image, those that its images have
    released: ReleasedLayout | None = None  # None: released weights cannot be imported

    def file(self, name: str) -> Traversable:
        """A data file of the family's folder, which may be absent."""
        return resources.files(self.package) / name
