"""Picks evenly spaced frames of videos and of frame folders."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from components.evaluation.benchmarks.sample_images import encode_frame

Bound = tuple[float, float] | None  # seconds of a clip in its video


class VideoError(Exception):
    """The bytes are no video, or hold no frame."""


def frame_indices(*, count: int, last: int, fps: float, bound: Bound, first: int = 0) -> list[int]:
    """Choose `count` frame indices from `first` to `last`: the middles of `count` equal parts of the clip.

    `bound` gives the clip's start and end in seconds; None means the whole video. The arithmetic follows
    OpenGVLab/Ask-Anything for MVBench (video_chat2/mvbench.ipynb, get_index).
    """
    start, end = (first, last)
    if bound is not None:
        start, end = max(first, round(bound[0] * fps)), min(round(bound[1] * fps), last)
    stretch = (end - start) / count
    return [min(last, max(first, int(start + stretch / 2 + round(stretch * place)))) for place in range(count)]


def video_frames(data: bytes, *, count: int, bound: Bound) -> list[bytes]:
    """Decode `count` evenly spaced frames of a video, as JPEG. `bound` limits them to a clip, in seconds.

    Raises:
        VideoError: the video cannot be decoded.
    """
    import av

    try:
        with av.open(BytesIO(data), "r") as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            total = stream.frames or _count(data)
            wanted = frame_indices(count=count, last=total - 1, fps=fps, bound=bound)
            stream.thread_type = "AUTO"
            return _pick(container.decode(stream), wanted)
    except (av.FFmpegError, IndexError) as error:
        raise VideoError(f"the video cannot be decoded ({error})") from None


def folder_frames(names: Sequence[str], *, count: int, bound: Bound, fps: float) -> list[str]:
    """Choose `count` frames of a folder. Its files are named 00001.jpg and so on; `fps` is their rate."""
    indices = frame_indices(count=count, last=len(names), fps=fps, bound=bound, first=1)
    ordered = sorted(names)
    return [ordered[index - 1] for index in indices]


def _count(data: bytes) -> int:
    """Count the frames of a video by decoding it, for a header without the number."""
    import av

    with av.open(BytesIO(data), "r") as container:
        return sum(1 for _ in container.decode(video=0))


def _pick(frames: Iterator[Any], wanted: list[int]) -> list[bytes]:
    """The frames at the indices, which must be ascending.

    A header may promise more frames than the video holds. The last frame then replaces the missing ones.
    """
    found: dict[int, bytes] = {}
    latest = None
    for index, frame in enumerate(frames):
        latest = frame
        if index in wanted:
            found[index] = encode_frame(frame.to_image())
        if index >= wanted[-1]:
            break
    if latest is None:
        raise VideoError("the video holds no frame")
    if wanted[-1] not in found:
        found |= {index: encode_frame(latest.to_image()) for index in wanted if index not in found}
    return [found[index] for index in wanted]
