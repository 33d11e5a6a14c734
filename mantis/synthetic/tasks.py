"""Define the tasks: the images, the questions about them, and the right answers.

The tasks leave no shortcuts:

- A question asks for an attribute of image i only if the images differ in it.
- The answer is chosen first and is uniform, whatever else is drawn.
- A motion starts in a corner, from which two directions are possible. So no single frame reveals it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mantis.synthetic.drawing import FAR, JITTER, NEAR, Pen
from mantis.synthetic.questions import (
    COLOUR_NAMES,
    COMPARISONS,
    COUNTS,
    DIRECTIONS,
    FRAMES,
    PLACE_NAMES,
    SAME,
    SCENE,
    Exchange,
    about_each,
    colour_in,
    comparison,
    count_of,
    description,
    direction_of,
    place_in,
    single_colour,
    single_place,
)

MARGIN = 4.0  # pixels by which a motion passes the centres of the quarters, at both ends


@dataclass(frozen=True, kw_only=True)
class Example:
    """Images, and the questions about them in order."""

    images: list[bytes]
    exchanges: list[Exchange]


# Training: several questions about the same images.


def scene(pen: Pen) -> Example:
    """Draw four images; ask for counts of colours, for colours and for places."""
    colour = pen.random.choice(COLOUR_NAMES)
    colours = _with_count(pen, colour, pen.random.randint(0, SCENE))
    places = _places(pen, SCENE)
    others = [*about_each(colours, places), count_of(_other(pen, COLOUR_NAMES, colour), colours)]
    exchanges = [count_of(colour, colours), *_some(pen, others, 2, 5)]
    return Example(images=_pictures(pen, colours, places), exchanges=_shuffled(pen, exchanges))


def pair(pen: Pen) -> Example:
    """Draw two images; ask whether the colours are the same, and for colours and places."""
    colours = _pair_colours(pen, pen.random.choice(COMPARISONS))
    places = _places(pen, 2)
    exchanges = [comparison(colours), *_some(pen, about_each(colours, places), 0, 2)]
    return Example(images=_pictures(pen, colours, places), exchanges=_shuffled(pen, exchanges))


def motion(pen: Pen) -> Example:
    """Draw four frames; ask in which direction the shape moves, and where it is at the beginning or end."""
    direction = pen.random.choice(DIRECTIONS)
    images, first, last = _frames(pen, direction)
    exchanges = [direction_of(direction), *_some(pen, [place_in(1, first), place_in(FRAMES, last)], 0, 1)]
    return Example(images=images, exchanges=_shuffled(pen, exchanges))


def single(pen: Pen) -> Example:
    """Draw one image; ask for its colour, its place, or both."""
    colour, place = pen.random.choice(COLOUR_NAMES), pen.random.choice(PLACE_NAMES)
    exchanges = _some(pen, [single_colour(colour), single_place(place)], 1, 2)
    return Example(images=[pen.picture(colour, place)], exchanges=exchanges)


def caption(pen: Pen) -> Example:
    """Draw one image; ask for a caption."""
    colour, place = pen.random.choice(COLOUR_NAMES), pen.random.choice(PLACE_NAMES)
    return Example(images=[pen.picture(colour, place)], exchanges=[description(colour, place)])


# Benchmarks: one question each. The answers of sample 0, 1, 2... cycle through the options, so that they are balanced.


def compare_colours(pen: Pen, number: int) -> Example:
    """Ask whether two images have the same colour."""
    colours = _pair_colours(pen, COMPARISONS[number % len(COMPARISONS)])
    return Example(images=_pictures(pen, colours, _places(pen, 2)), exchanges=[comparison(colours)])


def refer_to_image(pen: Pen, number: int) -> Example:
    """Ask for the colour or place in one of four images."""
    image = pen.random.randint(1, SCENE)
    if number % 2:
        places = _with_one(pen, PLACE_NAMES, image, PLACE_NAMES[number // 2 % len(PLACE_NAMES)])
        colours = [pen.random.choice(COLOUR_NAMES) for _ in range(SCENE)]
        exchange = place_in(image, places[image - 1])
    else:
        places = _places(pen, SCENE)
        colours = _with_one(pen, COLOUR_NAMES, image, COLOUR_NAMES[number // 2 % len(COLOUR_NAMES)])
        exchange = colour_in(image, colours[image - 1])
    return Example(images=_pictures(pen, colours, places), exchanges=[exchange])


def follow_motion(pen: Pen, number: int) -> Example:
    """Ask in which direction the shape moves over four frames."""
    direction = DIRECTIONS[number % len(DIRECTIONS)]
    images, _, _ = _frames(pen, direction)
    return Example(images=images, exchanges=[direction_of(direction)])


def count_colour(pen: Pen, number: int) -> Example:
    """Ask how many of four images show a colour."""
    colour = pen.random.choice(COLOUR_NAMES)
    colours = _with_count(pen, colour, number % len(COUNTS))
    return Example(images=_pictures(pen, colours, _places(pen, SCENE)), exchanges=[count_of(colour, colours)])


def look_at_one(pen: Pen, number: int) -> Example:
    """Ask for the colour or place in the only image."""
    colour, place = pen.random.choice(COLOUR_NAMES), pen.random.choice(PLACE_NAMES)
    if number % 2:
        place = PLACE_NAMES[number // 2 % len(PLACE_NAMES)]
        exchange = single_place(place)
    else:
        colour = COLOUR_NAMES[number // 2 % len(COLOUR_NAMES)]
        exchange = single_colour(colour)
    return Example(images=[pen.picture(colour, place)], exchanges=[exchange])


def _other(pen: Pen, values: Sequence[str], value: str) -> str:
    return pen.random.choice([each for each in values if each != value])


def _places(pen: Pen, images: int) -> list[str]:
    return [pen.random.choice(PLACE_NAMES) for _ in range(images)]


def _with_count(pen: Pen, colour: str, count: int) -> list[str]:
    """Draw colours of a scene with exactly `count` occurrences of `colour`."""
    chosen = pen.random.sample(range(SCENE), count)
    return [colour if image in chosen else _other(pen, COLOUR_NAMES, colour) for image in range(SCENE)]


def _with_one(pen: Pen, values: Sequence[str], image: int, value: str) -> list[str]:
    """Draw values of a scene with `value` in `image`, and others at random that are not all the same."""
    while True:
        drawn = [value if each == image else pen.random.choice(values) for each in range(1, SCENE + 1)]
        if len(set(drawn)) > 1:
            return drawn


def _pair_colours(pen: Pen, answer: str) -> list[str]:
    colour = pen.random.choice(COLOUR_NAMES)
    return [colour, colour if answer == SAME else _other(pen, COLOUR_NAMES, colour)]


def _pictures(pen: Pen, colours: Sequence[str], places: Sequence[str]) -> list[bytes]:
    return [pen.picture(colour, place) for colour, place in zip(colours, places, strict=True)]


def _frames(pen: Pen, direction: str) -> tuple[list[bytes], str, str]:
    """Draw frames of a shape that moves along an edge from corner to corner; return also its first and last place."""
    body = pen.body(pen.random.choice(COLOUR_NAMES))
    low, high = NEAR - MARGIN, FAR + MARGIN
    along = [low + step * (high - low) / (FRAMES - 1) for step in range(FRAMES)]
    if direction in ("left", "up"):
        along.reverse()
    side = pen.random.choice((NEAR, FAR))
    across = side + pen.random.uniform(-JITTER, JITTER)
    steps = [position + pen.random.uniform(-JITTER, JITTER) for position in along]
    points = [(step, across) if direction in ("left", "right") else (across, step) for step in steps]
    return [pen.draw(body, x, y) for x, y in points], _quarter(*points[0]), _quarter(*points[-1])


def _quarter(x: float, y: float) -> str:
    middle = (NEAR + FAR) / 2
    return f"{'top' if y < middle else 'bottom'} {'left' if x < middle else 'right'}"


def _some(pen: Pen, exchanges: Sequence[Exchange], least: int, most: int) -> list[Exchange]:
    """Draw `least` to `most` of the exchanges in random order, or all of them if they are fewer."""
    return pen.random.sample(exchanges, min(pen.random.randint(least, most), len(exchanges)))


def _shuffled(pen: Pen, exchanges: Sequence[Exchange]) -> list[Exchange]:
    return pen.random.sample(exchanges, len(exchanges))


Training = Callable[[Pen], Example]
HeldOut = Callable[[Pen, int], Example]

# The weight of each kind of conversation, within its subset and overall.
SUBSETS: dict[str, dict[Training, float]] = {
    "demo-multi": {scene: 6.0, pair: 2.0, motion: 2.5},
    "demo-single": {single: 1.0, caption: 1.5},
}
# The skills of each benchmark.
BENCHMARKS: dict[str, dict[str, HeldOut]] = {
    "demo-multi": {
        "compare": compare_colours,
        "coref": refer_to_image,
        "temporal": follow_motion,
        "reason": count_colour,
    },
    "demo-single": {"single": look_at_one},
}
