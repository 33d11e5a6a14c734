"""Decode chosen frames of a video, and encode them as JPEG."""

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

JPEG_QUALITY = 95  # of frames, which are encoded here
Choose = Callable[[int, float], Sequence[int]]  # frames of the video, frames per second -> ascending indices from 0


class VideoError(Exception):
    """The bytes are no video, or hold no frame."""


class FramePixelsError(VideoError):
    """The frames of a video have more pixels than allowed. `found` is their size as text."""

    def __init__(self, found: str) -> None:
        super().__init__(f"frames of {found} pixels")
        self.found = found


def encode_frame(image: Image.Image) -> bytes:
    """Encode a video's frame as JPEG."""
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_frames(video: bytes | Path, choose: Choose, *, max_pixels: int | None = None) -> list[bytes]:
    """Decode the frames that `choose` names, as JPEG. `video` holds the bytes, or is a file.

    Raises:
        FramePixelsError: a frame has more than `max_pixels` pixels by the header. Nothing is decoded then.
        VideoError: the video cannot be decoded.
    """
    import av

    try:
        with av.open(_opened(video), "r") as container:
            stream = container.streams.video[0]
            if max_pixels is not None and stream.width * stream.height > max_pixels:
                raise FramePixelsError(f"{stream.width} x {stream.height}")
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            wanted = list(choose(stream.frames or _count(video), rate))
            stream.thread_type = "AUTO"
            return _pick(container.decode(stream), wanted)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise VideoError(f"the video cannot be decoded ({error})") from None


def _opened(video: bytes | Path) -> BytesIO | str:
    return BytesIO(video) if isinstance(video, bytes) else str(video)


def _count(video: bytes | Path) -> int:
    """Count the frames of a video by decoding it, for a header without the number."""
    import av

    with av.open(_opened(video), "r") as container:
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
