"""What is asked about the images, in plain English, and which answers are possible."""

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
    """A question with its answer; `options` are all answers that it can have."""

    question: str
    answer: str
    options: tuple[str, ...]


def colour_in(image: int, colour: str) -> Exchange:
    """The colour in one of several images, the first of which is image 1."""
    return Exchange(question=f"What colour is the shape in image {image}?", answer=colour, options=COLOUR_NAMES)


def place_in(image: int, place: str) -> Exchange:
    """The place in one of several images, the first of which is image 1."""
    return Exchange(question=f"Where is the shape in image {image}?", answer=place, options=PLACE_NAMES)


def about_each(colours: Sequence[str], places: Sequence[str]) -> list[Exchange]:
    """Every question about one of several images, where the images differ in what is asked for."""
    exchanges: list[Exchange] = []
    if len(set(colours)) > 1:
        exchanges += [colour_in(image, colour) for image, colour in enumerate(colours, start=1)]
    if len(set(places)) > 1:
        exchanges += [place_in(image, place) for image, place in enumerate(places, start=1)]
    return exchanges


def count_of(colour: str, colours: Sequence[str]) -> Exchange:
    """How many of the images show this colour."""
    answer = str(list(colours).count(colour))
    return Exchange(question=f"How many images show a {colour} shape?", answer=answer, options=COUNTS)


def comparison(colours: Sequence[str]) -> Exchange:
    """Whether two images show the same colour."""
    question = "Are the colours in image 1 and image 2 the same or different?"
    answer = SAME if colours[0] == colours[1] else DIFFERENT
    return Exchange(question=question, answer=answer, options=COMPARISONS)


def direction_of(answer: str) -> Exchange:
    """Which way a shape goes over the images."""
    return Exchange(question="In which direction does the shape move?", answer=answer, options=DIRECTIONS)


def single_colour(colour: str) -> Exchange:
    """The colour in the only image."""
    return Exchange(question="What colour is the shape?", answer=colour, options=COLOUR_NAMES)


def single_place(place: str) -> Exchange:
    """The place in the only image."""
    return Exchange(question="Where is the shape?", answer=place, options=PLACE_NAMES)


def description(colour: str, place: str) -> Exchange:
    """A caption of the only image; for training alone, there is no list of all captions."""
    return Exchange(question="Describe the image.", answer=f"A {colour} shape at the {place}.", options=())
