"""Makes the prompt of a row: fills the template of the profile, and places the images."""

import re

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.benchmarks.samples import BenchmarkRow, RowError, is_absent
from components.evaluation.profiles.image_layouts import arrange
from components.evaluation.profiles.prompt_template import Prompt, PromptPart
from mantis.models.conversation import IMAGE_MARK

NUMBERED_MARK = re.compile(r"<image (\d+)>")  # MMMU: the k-th image column of the row
IMAGES = "{images}"


def make_prompt(row: BenchmarkRow, benchmark: Benchmark) -> tuple[str, list[int]]:
    """Make the user's turn, with an `<image>` mark for each image, and the places of these images in the row.

    Raises:
        RowError: the text has more marks than the row has images, or names an image that the row lacks.
    """
    profile = benchmark.resolved
    template = profile.prompt.templates[row.target.kind]
    if IMAGES not in template:
        template = IMAGES + template  # images without a mark come first
    filled = _filled(row, profile.prompt)
    fields = re.compile("|".join(map(re.escape, filled)))
    before, after = (fields.sub(lambda found: filled[found[0]], text) for text in template.split(IMAGES, 1))
    named = [int(number) - 1 for number in NUMBERED_MARK.findall(before + after)]
    if named and profile.prompt.image_numbers == "marks":
        text, places = NUMBERED_MARK.sub(IMAGE_MARK, before + after), named
    else:
        places = sorted(set(named)) or list(range(len(row.images)))[: profile.max_images]
        text = before + IMAGE_MARK * _unmarked(len(places), before + after, row, benchmark) + after
    if any(place >= len(row.images) or row.images[place] is None for place in places):
        raise RowError(str(benchmark.fields.question), row.question, "names an image that the row does not have")
    return arrange(text, profile.images), places


def _unmarked(images: int, text: str, row: BenchmarkRow, benchmark: Benchmark) -> int:
    """The number of images without a mark in the text."""
    unmarked = images - text.count(IMAGE_MARK)
    if unmarked < 0:
        problem = f"has {-unmarked} more {IMAGE_MARK} marks than the row has images"
        raise RowError(str(benchmark.fields.question), row.question, problem, "Remove them or add the images.")
    return unmarked


def _filled(row: BenchmarkRow, prompt: Prompt) -> dict[str, str]:
    """The text of each field of the template but {images}."""
    parts = {f"{{{name}}}": _part(row, part) for name, part in prompt.parts.items()}
    lines = [
        _option(prompt, letter, text, raw)
        for letter, text, raw in zip(row.target.letters, row.target.options, row.published, strict=True)
    ]
    return {
        "{hint}": prompt.hint.replace("{hint}", row.hint) if row.hint else "",
        "{question}": row.question.capitalize() if prompt.capitalize else row.question,
        "{options}": prompt.between.join(lines),
        "{letters}": ", ".join(row.target.letters),
        **parts,
    }


def _option(prompt: Prompt, letter: str, text: str, raw: str) -> str:
    form = prompt.option
    if prompt.lettered is not None and any(f"{letter}{sign}" in raw.upper() for sign in "):."):
        form = prompt.lettered
    values = {"{letter}": letter, "{text}": text, "{raw}": raw}
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], form)


def _part(row: BenchmarkRow, part: PromptPart) -> str:
    cells = [row.cells[column] for column in part.columns]
    value = " ".join(str(cell) for cell in cells if not is_absent(cell))
    if part.values is not None:
        value = part.values.get(value, "")
    return part.text.replace("{value}", value) if value else part.absent
