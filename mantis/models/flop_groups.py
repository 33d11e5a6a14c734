"""What the parameters of a model are multiplied with, so that training FLOPs are counted right.

A matrix of N weights costs 2 N FLOP for every vector that it is multiplied with. How many vectors those are depends on
where the matrix stands: one per token, per patch, or per latent of a resampler.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class FlopGroup(StrEnum):
    """The vectors that a parameter is multiplied with.

    A parameter in no group is multiplied once per patch in the parts `vision` and `projector`, else once per token.
    """

    ADDED = "added"  # none: the parameter is added, as position embeddings are
    PIXELS = "pixels"  # every patch's pixels, which need no gradient
    LATENTS = "latents"  # none: the parameter [latents, width] holds a resampler's latents
    PER_LATENT = "per-latent"  # every latent of every image: a resampler's matrices
    LATENT_KEYS = "latent-keys"  # every latent and every patch: a resampler's keys and values
    CROSS_KEYS = "cross-keys"  # every latent: the text model's cross attention to images


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The group of a projector's matrices that take `patches` patches as one vector.

    None: as many as the width of the tower goes into the width of the matrix's input.
    """

    patches: int | None = None


# The parts of the vision towers of CLIP, SigLIP, Idefics and Idefics 2, by transformers' names.
TOWER_GROUPS: dict[str, FlopGroup | Merged] = {
    "*position_embedding*": FlopGroup.ADDED,
    "*patch_embedding*": FlopGroup.PIXELS,
}
# The perceiver resamplers of Idefics and Idefics 2.
RESAMPLER_GROUPS: dict[str, FlopGroup | Merged] = {
    "*perceiver*.k_proj.*": FlopGroup.LATENT_KEYS,
    "*perceiver*.v_proj.*": FlopGroup.LATENT_KEYS,
    "*perceiver*latents": FlopGroup.LATENTS,
    "*perceiver*": FlopGroup.PER_LATENT,
}


def flop_group(parameter: str, groups: Mapping[str, FlopGroup | Merged]) -> FlopGroup | Merged | None:
    """The group of the first pattern that matches the parameter's name; None where none does.

    `groups` maps patterns of names, as `fnmatch` reads them, to groups.
    """
    return next((group for pattern, group in groups.items() if fnmatchcase(parameter, pattern)), None)
