"""The questions about the images in plain English, with their possible answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from mantis.synthetic.drawing import COLOURS, PLACES

SCENE = FRAMES = 4  # images
COLOUR_NAMES = tuple(COLOURS)
PLACE_NAMES = tuple(PLACES)
DIRECTIONS = ("left", "right", "up", "down")
COUNTS = tuple(str(count) for count in range(SCENE + 1))
SAME, DIFFERENT = COMPARISONS = ("same", "different")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A question and its answer; `options` are all possible answers."""

    question: str
    answer: str
    options: tuple[str, ...]


def colour_in(image: int, colour: str) -> Exchange:
    """Ask for the colour in one of several images; images count from 1."""
    return Exchange(question=f"What colour is the shape in image {image}?", answer=colour, options=COLOUR_NAMES)


def place_in(image: int, place: str) -> Exchange:
    """Ask for the place in one of several images; images count from 1."""
    return Exchange(question=f"Where is the shape in image {image}?", answer=place, options=PLACE_NAMES)


def about_each(colours: Sequence[str], places: Sequence[str]) -> list[Exchange]:
    """List every question about a single image, if the images differ in the attribute that the question asks for."""
    exchanges: list[Exchange] = []
    if len(set(colours)) > 1:
        exchanges += [colour_in(image, colour) for image, colour in enumerate(colours, start=1)]
    if len(set(places)) > 1:
        exchanges += [place_in(image, place) for image, place in enumerate(places, start=1)]
    return exchanges


def count_of(colour: str, colours: Sequence[str]) -> Exchange:
    """Ask how many of the images show this colour."""
    answer = str(list(colours).count(colour))
    return Exchange(question=f"How many images show a {colour} shape?", answer=answer, options=COUNTS)


def comparison(colours: Sequence[str]) -> Exchange:
    """Ask whether two images show the same colour."""
    question = "Are the colours in image 1 and image 2 the same or different?"
    answer = SAME if colours[0] == colours[1] else DIFFERENT
    return Exchange(question=question, answer=answer, options=COMPARISONS)


def direction_of(answer: str) -> Exchange:
    """Ask in which direction a shape moves over the images."""
    return Exchange(question="In which direction does the shape move?", answer=answer, options=DIRECTIONS)


def single_colour(colour: str) -> Exchange:
    """Ask for the colour in the only image."""
    return Exchange(question="What colour is the shape?", answer=colour, options=COLOUR_NAMES)


def single_place(place: str) -> Exchange:
    """Ask for the place in the only image."""
    return Exchange(question="Where is the shape?", answer=place, options=PLACE_NAMES)


def description(colour: str, place: str) -> Exchange:
    """Ask for a caption of the only image. It has no options, because only training uses it."""
    return Exchange(question="Describe the image.", answer=f"A {colour} shape at the {place}.", options=())
