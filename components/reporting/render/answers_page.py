"""Render the page that browses all judged answers of a run."""

import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from components.reporting.collect.judged_answers import OUTCOMES, AnswerChunk
from components.reporting.render.page import environment

PAGE = "answers.html"


def chunk_entry(chunk: AnswerChunk) -> dict[str, object]:
    """What the page has to know of a chunk before it loads the chunk."""
    return {"file": chunk.file, "benchmark": chunk.benchmark, "groups": chunk.groups()}


def render_answers(run: str, chunks: Sequence[Mapping[str, object]], titles: Mapping[tuple[str, str], str]) -> str:
    """Render the page with its style and script inline. It loads a chunk when a person asks for its answers.

    Args:
        run: the run's id.
        chunks: an entry of `chunk_entry` for each chunk.
        titles: the words for a skill, by benchmark and skill.
    """
    named = [[benchmark, skill, title] for (benchmark, skill), title in titles.items()]
    index = json.dumps({"chunks": chunks, "titles": named, "outcomes": OUTCOMES})
    # Within a script element, only `<` can end it or begin a comment.
    return environment().get_template(PAGE).render(run=run, index=Markup(index.replace("<", "\\u003c")))
