"""Evenly spaced frames of videos, and of folders of frames."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from components.evaluation.benchmarks.sample_images import encode_frame

Bound = tuple[float, float] | None  # seconds of a clip in its video


class VideoError(Exception):
    """Bytes that are no video, or hold no frame."""


def frame_indices(*, count: int, last: int, fps: float, bound: Bound, first: int = 0) -> list[int]:
    """`count` indices from `first` to `last`: the middles of as many equal stretches of the clip.

    As OpenGVLab/Ask-Anything takes them for MVBench (video_chat2/mvbench.ipynb, get_index).
    """
    start, end = (first, last)
    if bound is not None:
        start, end = max(first, round(bound[0] * fps)), min(round(bound[1] * fps), last)
    stretch = (end - start) / count
    return [min(last, max(first, int(start + stretch / 2 + round(stretch * place)))) for place in range(count)]


def video_frames(data: bytes, *, count: int, bound: Bound) -> list[bytes]:
    """`count` frames of a video as JPEG, evenly spaced over it or over the clip of seconds `bound`.

    Raises:
        VideoError: it cannot be decoded.
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
        raise VideoError(f"it is no video that can be decoded ({error})") from None


def folder_frames(names: Sequence[str], *, count: int, bound: Bound, fps: float) -> list[str]:
    """Of a folder's frames, called 00001.jpg and so on, the names of those to show."""
    indices = frame_indices(count=count, last=len(names), fps=fps, bound=bound, first=1)
    ordered = sorted(names)
    return [ordered[index - 1] for index in indices]


def _count(data: bytes) -> int:
    """Frames of a video whose header does not say."""
    import av

    with av.open(BytesIO(data), "r") as container:
        return sum(1 for _ in container.decode(video=0))


def _pick(frames: Iterator[Any], wanted: list[int]) -> list[bytes]:
    """The frames at the indices, which rise; a header may promise more than there are, then the last one stands in."""
    found: dict[int, bytes] = {}
    latest = None
    for index, frame in enumerate(frames):
        latest = frame
        if index in wanted:
            found[index] = encode_frame(frame.to_image())
        if index >= wanted[-1]:
            break
    if latest is None:
        raise VideoError("it holds no frame")
    if wanted[-1] not in found:
        found |= {index: encode_frame(latest.to_image()) for index in wanted if index not in found}
    return [found[index] for index in wanted]
