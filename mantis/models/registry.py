"""Every model family by its name. What a family needs is imported when it is asked for: transformers takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from mantis.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from mantis.models.family import Family


def _llava_clip() -> Family:
    from mantis.models.families.llava.model import CLIP, Llava

    return Llava(name="llava-clip", tower=CLIP)


def _llava_siglip() -> Family:
    from mantis.models.families.llava.model import SIGLIP, Llava

    return Llava(name="llava-siglip", tower=SIGLIP)


def _idefics2() -> Family:
    from mantis.models.families.idefics2.model import Idefics2

    return Idefics2()


def _fuyu() -> Family:
    from mantis.models.families.fuyu.model import Fuyu

    return Fuyu()


def _flamingo() -> Family:
    from mantis.models.families.flamingo.model import Flamingo

    return Flamingo()


FAMILIES: dict[str, Callable[[], Family]] = {
    "llava-clip": _llava_clip,
    "llava-siglip": _llava_siglip,
    "idefics2": _idefics2,
    "fuyu": _fuyu,
    "flamingo": _flamingo,
}


@cache
def family(name: str) -> Family:
    """The family of this name.

    Raises:
        ConfigError: there is none; names those that exist.
    """
    check_family(name)
    return FAMILIES[name]()


def check_family(name: str) -> None:
    """Refuse a name of nothing, without a look at the family itself.

    Raises:
        ConfigError: there is no such family; names those that exist.
    """
    if name not in FAMILIES:
        raise ConfigError(
            f"model.family = {name!r} is not a model family.",
            remedy=f"{did_you_mean(name, FAMILIES)}Families: {', '.join(sorted(FAMILIES))}.",
        )
