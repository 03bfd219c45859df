"""A video, or a folder of frames, to pictures with the times at which they are shown.

A model sees a video as its frames, each behind its time as NEO-ov writes it: `[0.0s]: <img>...`. PyAV decodes, which is
the extra `video`. Sizes and duration are looked at in the head of the file, before anything is decoded.
"""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from .image import smart_resize
from .picture import check_aspect_ratio, load_image

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

FRAME_PIXELS = 512 * 512
"""Larger frames are made so large, 256 tokens: 128 of them are 32 768 tokens, about the context that NEO-ov learned."""
MOST_FRAMES = 1024
"""Frames that can be asked for."""
MAX_SOURCE_PIXELS = 7680 * 4320
"""Most pixels of a frame in the file."""
MAX_SECONDS = 6 * 3600
"""Longest video."""

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".ogv", ".flv", ".wmv")
"""By which the command line tells videos from pictures."""

# Containers that are opened; not those that point to other files or to the web, as playlists do.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf"
_FACTOR = 32
_SEEK_BEYOND = 10.0  # seconds to the next frame wanted from which on jumping there beats decoding up to it
_ROUNDING = 1e-3


class Frame(NamedTuple):
    """What is shown at some time, in seconds from the beginning."""

    seconds: float
    picture: Image.Image


def read_frames(source: Any, fps: float = 1.0, max_frames: int = 128, max_pixels: int = FRAME_PIXELS) -> list[Frame]:
    """Frames of a video from its beginning on, `fps` of them a second.

    Args:
        source: a path, the bytes of a file or a binary file object; or a folder of pictures, which are taken as frames
            in the order of their names; or frames that were read before, which stay as they are.
        fps: frames that are looked at in a second; of a folder, how many of its pictures make a second.
        max_frames: where there would be more, so many are spread evenly over all of it.
        max_pixels: larger frames are scaled down to this area.

    Raises:
        ValueError: the file is missing, damaged or no video, the folder is empty, a limit of this module is exceeded, a
            number is out of range, or the extra is not installed.
    """
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1000:
        raise ValueError(f"fps={fps!r} must be a number above 0 and of 1000 at the most")
    if isinstance(max_frames, bool) or not isinstance(max_frames, int) or not 1 <= max_frames <= MOST_FRAMES:
        raise ValueError(f"max_frames={max_frames!r} must be a whole number from 1 to {MOST_FRAMES}")
    if isinstance(source, list) and source and all(isinstance(frame, Frame) for frame in source):
        return source
    if isinstance(source, str | os.PathLike) and Path(source).expanduser().is_dir():
        found = _from_folder(Path(source).expanduser(), fps, max_frames)
    else:
        found = _from_file(source, fps, max_frames)
    return [Frame(seconds, _scaled(picture, max_pixels)) for seconds, picture in found]


def _from_folder(folder: Path, fps: float, max_frames: int) -> Iterator[Frame]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise ValueError(f"{folder}: the folder has no frames; put pictures there whose names are in order")
    numbers = range(len(files)) if len(files) <= max_frames else _spread(len(files), max_frames)
    for number in map(int, numbers):
        yield Frame(number / fps, load_image(files[number]))


def _from_file(source: Any, fps: float, max_frames: int) -> Iterator[Frame]:
    try:
        import av
    except ImportError as error:
        raise ValueError("videos need PyAV: install the extra with pip install 'neo-vlm[video]'") from error
    file, name = _open(source)
    try:
        with file as opened, av.open(opened, options={"format_whitelist": _CONTAINERS}) as container:
            if not container.streams.video:
                raise ValueError(f"{name}: there is no video in this file")
            stream = container.streams.video[0]
            seconds = _checked_seconds(container, stream, name)
            stream.codec_context.options = {"max_pixels": str(MAX_SOURCE_PIXELS)}  # heads can lie
            stream.thread_type = "AUTO"
            count = max(1, math.ceil(seconds * fps - _ROUNDING))
            times = [i / fps for i in range(count)] if count <= max_frames else _spread(seconds, max_frames)
            for time, frame in zip(times, _shown_at(times, container, stream, name), strict=False):
                yield Frame(time, frame.to_image().rotate(frame.rotation, expand=True))
    except (av.FFmpegError, OSError) as error:  # OSError: of the file itself, where its head points outside it
        raise ValueError(f"{name}: the video is damaged, or of a kind that is not read ({error.strerror})") from error


def _open(source: Any) -> tuple[Any, str]:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source), f"video of {len(source)} bytes"
    if isinstance(source, str | os.PathLike):
        try:
            return Path(source).expanduser().open("rb"), str(source)[:200]
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"{str(source)[:200]}: cannot read the video file ({reason})") from error
    if hasattr(source, "read"):
        return nullcontext(source), str(getattr(source, "name", "video from a file object"))
    raise ValueError(f"video must be a path, a folder, bytes or a file object, not {type(source).__name__}")


def _checked_seconds(container: InputContainer, stream: VideoStream, name: str) -> float:
    """How long a video is, within the limits; from the head of the file, or else from where its packets end."""
    if stream.codec_context is None:
        raise ValueError(f"{name}: the video is damaged, or of a kind that is not read (no decoder)")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_SOURCE_PIXELS:
        raise ValueError(f"{name}: frames of {width} x {height} pixels; at most {MAX_SOURCE_PIXELS} are decoded")
    if width and height:
        check_aspect_ratio(height, width, name)
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)  # type: ignore[operator]
    elif container.duration is not None:
        seconds = container.duration / 1_000_000
    else:
        ends = [packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        seconds = float((max(ends, default=0) - (stream.start_time or 0)) * stream.time_base)  # type: ignore[operator]
        container.seek(0)
    if seconds > MAX_SECONDS:
        raise ValueError(f"{name}: the video is {seconds:.0f} s long; at most {MAX_SECONDS} s are read")
    return seconds


def _shown_at(
    times: Sequence[float], container: InputContainer, stream: VideoStream, name: str
) -> Iterator[av.VideoFrame]:
    """The frame that is shown at each of these times: the last one that begins not later."""
    base = float(stream.time_base)  # type: ignore[arg-type]
    start = (stream.start_time or 0) * base
    frames = container.decode(stream)
    shown, following = None, next(frames, None)
    if following is None:
        raise ValueError(f"{name}: there are no frames in this video")
    for time in times:
        if following is not None and time - _time(following, start) > _SEEK_BEYOND:
            container.seek(int((start + time) / base), stream=stream)
            frames = container.decode(stream)
            following = next(frames, None)
        while following is not None and _time(following, start) <= time + _ROUNDING:
            shown, following = following, next(frames, None)
        if following is None and shown is not None and time > _time(shown, start) + _lasts(shown, stream):
            logger.warning("%s: its frames end behind %.1f s, before its stated end", name, _time(shown, start))
            return
        yield shown or following  # type: ignore[misc]


def _time(frame: av.VideoFrame, start: float) -> float:
    return (frame.time or 0.0) - start


def _lasts(frame: av.VideoFrame, stream: VideoStream) -> float:
    """Seconds that a frame is shown, at least."""
    return max(float((frame.duration or 0) * (frame.time_base or 0)), 1 / float(stream.average_rate or 1))


def _spread(length: float, count: int) -> list[float]:
    """So many places from 0 on, equally far apart, before `length`."""
    return [i * length / count for i in range(count)]


def _scaled(picture: Image.Image, max_pixels: int) -> Image.Image:
    """A frame at the size that the model reads, if it is too large."""
    if picture.width * picture.height <= max_pixels:
        return picture
    height, width = smart_resize(picture.height, picture.width, _FACTOR, _FACTOR**2, max_pixels)
    return picture.resize((width, height), Image.Resampling.BICUBIC)
