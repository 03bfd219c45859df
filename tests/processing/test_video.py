"""Videos are made here, of one gray for each frame, so that a frame says which one it is."""

import io
import re
import struct
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from neo.processing import video
from neo.processing.video import FRAME_PIXELS, read_frames


def make_video(file: Any, frames: int = 40, rate: int = 10, size: tuple[int, int] = (64, 48), **options: Any) -> Any:
    """Frame i is gray 40 + 5 * i, and darker in its left half."""
    with av.open(file, "w", format=options.pop("format", None)) as container:
        stream = container.add_stream(options.pop("codec", "mpeg4"), rate=Fraction(rate))
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.gop_size = 5
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 5 * number + 40, np.uint8)
            pixels[:, : size[0] // 2] = 10
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    return file


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 seconds of 10 frames each."""
    return make_video(tmp_path_factory.mktemp("videos") / "clip.mp4")


def number_of(picture: Image.Image) -> int:
    """Which frame it is."""
    return round((picture.getpixel((picture.width - 4, picture.height // 2))[0] - 40) / 5)


def seen(source: Any, **options: Any) -> list[tuple[float, int]]:
    return [(round(frame.seconds, 3), number_of(frame.picture)) for frame in read_frames(source, **options)]


# What is looked at.


def test_one_frame_a_second(clip: Path):
    assert seen(clip) == [(0, 0), (1, 10), (2, 20), (3, 30)]


def test_other_rates(clip: Path):
    assert seen(clip, fps=2.5) == [(round(0.4 * i, 3), 4 * i) for i in range(10)]
    assert seen(clip, fps=10) == [(i / 10, i) for i in range(40)]
    assert seen(clip, fps=20)[:4] == [(0, 0), (0.05, 0), (0.1, 1), (0.15, 1)]
    assert seen(clip, fps=0.1) == [(0, 0)]


def test_more_frames_than_allowed_are_spread_over_all_of_it(clip: Path):
    assert seen(clip, fps=10, max_frames=4) == [(0, 0), (1, 10), (2, 20), (3, 30)]
    assert seen(clip, fps=10, max_frames=1) == [(0, 0)]


def test_far_frames_are_jumped_to_and_are_the_same(clip: Path, monkeypatch: pytest.MonkeyPatch):
    near = seen(clip, fps=1.3)
    monkeypatch.setattr(video, "_SEEK_BEYOND", 0.2)
    assert seen(clip, fps=1.3) == near


@pytest.mark.parametrize(("name", "codec"), [("clip.mkv", "mpeg4"), ("clip.avi", "mpeg4"), ("clip.webm", "libvpx")])
def test_other_containers(tmp_path: Path, name: str, codec: str):
    assert seen(make_video(tmp_path / name, codec=codec)) == [(0, 0), (1, 10), (2, 20), (3, 30)]


def test_a_video_that_does_not_say_how_long_it_is():
    class Pipe:
        """Cannot be gone back in, so that the length is never written at the head."""

        def __init__(self) -> None:
            self.content = b""

        def write(self, content: bytes) -> int:
            self.content += content
            return len(content)

    content = make_video(Pipe(), format="matroska").content
    with av.open(io.BytesIO(content)) as container:
        assert container.duration is container.streams.video[0].duration is None
    assert seen(content) == [(0, 0), (1, 10), (2, 20), (3, 30)]


def test_paths_bytes_and_file_objects(clip: Path):
    expected = seen(clip)
    assert seen(str(clip)) == expected
    assert seen(clip.read_bytes()) == expected
    with clip.open("rb") as file:
        assert seen(file) == expected
        assert not file.closed


def test_large_frames_are_made_smaller(tmp_path: Path):
    large = make_video(tmp_path / "large.mp4", frames=1, size=(1280, 720))
    (frame,) = read_frames(large)
    assert frame.picture.size == (672, 384)
    assert frame.picture.width * frame.picture.height <= FRAME_PIXELS
    assert read_frames(large, max_pixels=2_000_000)[0].picture.size == (1280, 720)


def test_a_video_is_turned_upright(clip: Path):
    """As telephones write it: the frames lie on their side, and the head of the track says so."""
    content = bytearray(clip.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    for quarter, (a, b, c, d) in {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}.items():
        one = 1 << 16
        content[matrix : matrix + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
        picture = read_frames(bytes(content))[0].picture
        assert picture.size == ((64, 48) if quarter == 2 else (48, 64))
        dark = {1: (24, 4), 2: (60, 24), 3: (24, 60)}[quarter]  # clockwise, the left side comes up first
        assert picture.getpixel(dark)[0] < 20


# Folders.


def make_folder(folder: Path, frames: int) -> Path:
    folder.mkdir()
    for number in range(frames):
        Image.new("RGB", (40, 30), (5 * number + 40,) * 3).save(folder / f"{number:03}.png")
    return folder


def test_a_folder_of_frames(tmp_path: Path):
    folder = make_folder(tmp_path / "frames", 5)
    (folder / ".hidden").write_text("not a frame")
    assert seen(folder) == [(i, i) for i in range(5)]
    assert seen(str(folder), fps=2) == [(i / 2, i) for i in range(5)]
    assert seen(folder, fps=2, max_frames=2) == [(0, 0), (1, 2)]


# What is refused.


def test_no_video(tmp_path: Path, clip: Path):
    def refused(source: Any, sentence: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=sentence) as raised:
            read_frames(source, **options)
        assert "\n" not in str(raised.value)

    (tmp_path / "text.mp4").write_text("this is text " * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    (tmp_path / "no_frames").mkdir()
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{clip}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    with av.open(tmp_path / "sound.mp4", "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux([*stream.encode(sound), *stream.encode()])
    refused(tmp_path / "none.mp4", "none.mp4: cannot read the video file")
    refused("a\0b", "cannot read the video file")
    for name in ("text", "empty", "half", "list", "concat"):
        refused(tmp_path / f"{name}.mp4", f"{name}.mp4: the video is damaged, or of a kind that is not read")
    refused(tmp_path / "sound.mp4", "sound.mp4: there is no video in this file")
    refused(tmp_path / "no_frames", "no_frames: the folder has no frames")
    refused(3, "video must be a path, a folder, bytes or a file object, not int")
    refused(b"", "video of 0 bytes: the video is damaged")
    for fps in (0, -1, float("nan"), "1", True, 1001):
        refused(clip, re.escape(f"fps={fps!r} must be a number above 0"), fps=fps)
    for most in (0, 1.5, 1025, True):
        refused(clip, re.escape(f"max_frames={most!r} must be a whole number from 1 to 1024"), max_frames=most)


def test_limits_hold_before_anything_is_decoded(clip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "_shown_at", None)  # what decodes
    monkeypatch.setattr(video, "MAX_SECONDS", 3)
    with pytest.raises(ValueError, match="the video is 4 s long; at most 3 s are read"):
        read_frames(clip)
    monkeypatch.setattr(video, "MAX_SOURCE_PIXELS", 64 * 48 - 1)
    with pytest.raises(ValueError, match="frames of 64 x 48 pixels; at most 3071 are decoded"):
        read_frames(clip)


def test_damaged_files_are_refused_or_read(clip: Path):
    """Whatever bytes are wrong, nothing but a sentence comes of it."""
    noise, content = np.random.default_rng(0), clip.read_bytes()
    for _ in range(100):
        damaged = bytearray(content)
        for place in noise.integers(0, len(content), 20):
            damaged[place] = noise.integers(256)
        with suppress(ValueError):
            read_frames(bytes(damaged))


def test_frames_that_end_too_early_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    whole = make_video(tmp_path / "whole.mkv").read_bytes()
    assert 0 < len(seen(whole[: len(whole) // 2])) < 4
    assert "its frames end behind" in caplog.text


def test_without_the_extra_one_sentence_says_so(clip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'neo-vlm[video]'")):
        read_frames(clip)
