"""Files in the forms of the official examples: chat, chat_video, training_example and classification.

The forms are those of data/examples and data/training_example.json in TIGER-AI-Lab/Mantis; the content is our own.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.data.step import assemble, prepare
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import InputError
from tests.fixtures.data import RawFolder, RowsOf, RunOn, encoded

CHAT = [("user", "<image><image>Which one is bluer?"), ("assistant", "Image 2."), ("user", "And red?")]
LLAVA = [("human", "<image>\nWhich colours?"), ("gpt", "Red."), ("human", "Is it dark?"), ("gpt", "No.")]


def turns(said: list[tuple[str, str]], role: str, content: str) -> list[dict[str, str]]:
    return [{role: name, content: text} for name, text in said]


def video() -> bytes:
    """Forty frames at ten a second, each of another grey."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for number in range(40):
            frame = np.full((48, 64, 3), 6 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return buffer.getvalue()


def test_chat_and_training_example_reach_the_mixture(raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf) -> None:
    """Images lie some folders below the file. One row names `image`, and repeats an id with other words."""
    names = [raw_folder.image(f"train_images/a/b/{number}.jpg", encoded((0, 0, 60 * number))) for number in range(3)]
    conversation = turns([*CHAT, ("assistant", "Image 1.")], "role", "content")
    other = [("human", "<image>\nIs it day?"), ("gpt", "Yes.")]
    rows: list[dict[str, Any]] = [
        {"id": "chat_0", "images": names[:2], "conversation": conversation},
        {"id": "33471", "images": names[2:], "conversations": turns(LLAVA, "from", "value")},
        {"id": "33471", "image": names[2], "conversations": turns(LLAVA, "from", "value")},
        {"id": "33471", "image": names[2], "conversations": turns(other, "from", "value")},
    ]
    run = run_on(raw_folder.write(rows))
    dataset = prepare(run, "raw")
    kept = data_of(run, dataset)
    assert [(row["id"], row["paths"]) for row in kept] == [
        ("chat_0", names[:2]),
        ("33471", names[2:]),
        ("33471#3", names[2:]),
    ]
    assert (dataset.summary["rows"], dataset.summary["unusable"]) == (4, 0)  # the third row is a copy of the second
    assert len(MixtureReader(run.store, assemble(run, [dataset]))) == 3


def test_chat_video_is_learned_from_frames(raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf) -> None:
    """The official ChatVideoDataset puts the frames before the first question, too, where no mark is."""
    raw_folder.image("video/000001_000050/1.mp4", video())
    said = [("user", "What is in the first second?"), ("assistant", "It is dark."), ("user", "Later?")]
    conversation = turns([*said, ("assistant", "It is bright.")], "role", "content")
    rows = [{"id": "videochat1_0", "video": "video/000001_000050/1.mp4", "conversation": conversation}]
    run = run_on(raw_folder.write(rows), {"data.max_frames": "4"})
    dataset = prepare(run, "raw")
    (row,) = data_of(run, dataset)
    assert row["contents"][0] == "<image>" * 4 + "What is in the first second?"
    assert len(row["images"]) == 4
    assert MixtureReader(run.store, assemble(run, [dataset])).images.tolist() == [4]


def test_classification_is_refused_by_name(raw_folder: RawFolder, run_on: RunOn, tmp_path: Path) -> None:
    names = [raw_folder.image(f"images/a/a_{number:02d}.jpg") for number in range(2)]
    rows = [
        {"id": f"a{number}", "images": names, "prompt": "Rate the video.", "labels": {"quality": 1.0, "motion": 3.0}}
        for number in range(3)
    ]
    with pytest.raises(InputError, match="none of 3 rows can be used \\(3 classification-row\\)") as refused:
        prepare(run_on(raw_folder.write(rows)), "raw")
    assert "Write the question as the user's turn and the label as the assistant's." in f"{refused.value}"
