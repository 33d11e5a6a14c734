"""Which families a test takes: those of the paper always, every other registered family in the slow tests."""

import pytest
from _pytest.mark.structures import ParameterSet

from mantis.models.registry import family_names

PAPER = ("flamingo", "fuyu", "idefics2", "llava-clip", "llava-siglip")


def others() -> list[str]:
    """Every registered family that the paper does not have."""
    return [name for name in family_names() if name not in PAPER]


def paper_first() -> list[str | ParameterSet]:
    """Parameters of a test: all registered families, of which those beside the paper's are slow tests."""
    return [*PAPER, *(pytest.param(name, marks=pytest.mark.slow) for name in others())]
