"""Loads the profiles of profiles.yaml, and resolves a profile for one benchmark and one model family."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from components.evaluation.profiles.image_layouts import ImageLayout
from components.evaluation.profiles.prompt_template import ProfileData, Prompt
from mantis.config.bounded_yaml import parse_yaml
from mantis.config.evaluation_settings import DEFAULT_PROFILE
from mantis.errors import ConfigError, did_you_mean
from mantis.generation.decoding import Decoding

PROFILES = Path(__file__).with_name("profiles.yaml")


class FamilyValues(ProfileData):
    """The values that a profile has for one model family."""

    images: ImageLayout | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: tuple[str, ...] | None = None


class Profile(ProfileData):
    """A profile of profiles.yaml, which explains the fields."""

    name: str
    title: str
    prompts: tuple[str, ...] = Field(min_length=1)
    images: ImageLayout
    max_new_tokens: Annotated[int, Field(ge=1)]
    stop: tuple[str, ...]
    families: dict[str, FamilyValues] = Field(default_factory=dict)
    instead: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()


class ResolvedProfile(ProfileData):
    """A profile for one benchmark and one model family.

    `asked` is the profile that the recipe names. `name` is the profile that is used: `asked`, or another one if the
    benchmark lacks it. `entry` is the benchmark's entry of `prompts`. `metric` is the entry's
    rule, or None for the benchmark's.
    """

    asked: str
    name: str
    entry: str
    prompt: Prompt
    images: ImageLayout
    max_images: int | None
    decoding: Decoding
    metric: str | None

    def substitution(self, benchmark: str) -> str | None:
        """A sentence that says which profile is used instead, or None if the benchmark has it."""
        if self.name == self.asked:
            return None
        text = "" if self.entry == self.name else f", with the prompt `{self.entry}`"
        return f"{benchmark} has no profile {self.asked}: the profile {self.name} is used{text}"

    def identity(self) -> dict[str, Any]:
        """The values that decide the text of prompts and their images."""
        told = {"source", "images", "max_new_tokens", "stop", "metric", "wrappers", "max_images"}
        prompt = self.prompt.model_dump(mode="json", exclude=told, exclude_defaults=True)
        return {"prompt": prompt, "images": self.images, "max_images": self.max_images}


def profiles() -> Mapping[str, Profile]:
    """All profiles by name."""
    return _read(PROFILES)


def load_profile(name: str) -> Profile:
    """Load the profile of this name.

    Raises:
        ConfigError: the profile does not exist. The error lists all names.
    """
    known = profiles()
    if name not in known:
        raise ConfigError(
            f"evaluation.profile = {name!r} is no profile.",
            remedy=f"{did_you_mean(name, known)}Choose one of {', '.join(known)}.",
        )
    return known[name]


def resolve_profile(asked: str, prompts: Mapping[str, Prompt], family: str = "") -> ResolvedProfile:
    """Resolve the profile `asked` for a benchmark with the entries `prompts`, and for a model family.

    A benchmark without an entry for it takes the first profile of `instead` that it has an entry for. If there is
    none, it takes its own first entry, with the default profile.

    Raises:
        ConfigError: the profile does not exist.
    """
    wanted = load_profile(asked)
    for profile in (wanted, *(load_profile(name) for name in wanted.instead)):
        for entry in profile.prompts:
            if entry in prompts:
                return _resolved(asked, profile, entry, prompts[entry], family)
    entry, prompt = next(iter(prompts.items()))
    return _resolved(asked, load_profile(DEFAULT_PROFILE), entry, prompt, family)


@cache
def _read(file: Path) -> Mapping[str, Profile]:
    raw = parse_yaml(file.read_text())
    return {name: Profile.model_validate({**fields, "name": name}) for name, fields in raw.items()}


def _resolved(asked: str, profile: Profile, entry: str, prompt: Prompt, family: str) -> ResolvedProfile:
    own = entry == profile.name
    layers: list[Profile | Prompt | FamilyValues] = [profile]
    if own:
        layers.append(prompt)
    if family in profile.families and prompt.wrappers:
        layers.append(profile.families[family])

    def last(field: str) -> Any:
        return next(found for layer in reversed(layers) if (found := getattr(layer, field, None)) is not None)

    return ResolvedProfile(
        asked=asked,
        name=profile.name,
        entry=entry,
        prompt=prompt,
        images=last("images"),
        max_images=prompt.max_images if own else None,
        decoding=Decoding(max_new_tokens=last("max_new_tokens"), stop=last("stop")),
        metric=prompt.metric if own else None,
    )
