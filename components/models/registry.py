"""Every model family by its name."""

from components.core.errors import ConfigError
from components.models.family import Family
from components.models.flamingo import Flamingo
from components.models.fuyu import Fuyu
from components.models.idefics2 import Idefics2
from components.models.llava import CLIP, SIGLIP, Llava

FAMILIES: dict[str, Family] = {
    "llava-clip": Llava(name="llava-clip", tower=CLIP),
    "llava-siglip": Llava(name="llava-siglip", tower=SIGLIP),
    "idefics2": Idefics2(),
    "fuyu": Fuyu(),
    "flamingo": Flamingo(),
}


def family(name: str) -> Family:
    """The family of this name.

    Raises:
        ConfigError: there is none; names those that exist.
    """
    if name not in FAMILIES:
        raise ConfigError(
            f"model.family = {name!r} is not a model family.", remedy=f"Families: {', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[name]
