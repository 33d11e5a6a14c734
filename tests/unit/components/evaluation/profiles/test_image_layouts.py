"""The layouts of the official wrappers (TIGER-AI-Lab/Mantis, mantis/mllm_tools)."""

from typing import get_args

import pytest

from components.evaluation.profiles.image_layouts import ImageLayout, arrange

PROMPT = "<image> <image> Is the cat of <image> here?\nAnswer."


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("interleaved", PROMPT),
        ("spaced", "<image> <image>  Is the cat of <image>  here?\nAnswer."),
        ("lines", "<image> \n<image> \n Is the cat of <image> \n here?\nAnswer."),
        ("images-first", "<image><image><image> Is the cat of \n here?\nAnswer."),
        ("between-texts", "<image><image> Is the cat of <image> here?\nAnswer."),
    ],
)
def test_text_between_images(layout: ImageLayout, expected: str) -> None:
    assert arrange(PROMPT, layout) == expected


@pytest.mark.parametrize("layout", get_args(ImageLayout))
def test_no_layout_loses_an_image_or_a_text(layout: ImageLayout) -> None:
    for prompt in ("", "What?", "<image>", "<image><image>", "<image>\nWhat?", "a<image>b<image>c", "What? <image> "):
        arranged = arrange(prompt, layout)
        assert arranged.count("<image>") == prompt.count("<image>")
        assert arranged.replace("<image>", "").split() == prompt.replace("<image>", " ").split() or layout in (
            "interleaved",
            "between-texts",
        )
