"""Picks evenly spaced frames of videos and of frame folders."""

from collections.abc import Sequence
from pathlib import Path

from mantis.generation.sample_images import MAX_IMAGE_PIXELS
from mantis.images.video import decode_frames

Bound = tuple[float, float] | None  # seconds of a clip in its video


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


def video_frames(video: bytes | Path, *, count: int, bound: Bound) -> list[bytes]:
    """Decode `count` evenly spaced frames of a video, as JPEG. `bound` limits them to a clip, in seconds.

    Raises:
        VideoError: the video cannot be decoded, or its frames have more than MAX_IMAGE_PIXELS.
    """

    def chosen(total: int, fps: float) -> list[int]:
        return frame_indices(count=count, last=total - 1, fps=fps, bound=bound)

    return decode_frames(video, chosen, max_pixels=MAX_IMAGE_PIXELS)


def folder_frames(names: Sequence[str], *, count: int, bound: Bound, fps: float) -> list[str]:
    """Choose `count` frames of a folder. Its files are named 00001.jpg and so on; `fps` is their rate."""
    indices = frame_indices(count=count, last=len(names), fps=fps, bound=bound, first=1)
    ordered = sorted(names)
    return [ordered[index - 1] for index in indices]
