"""Video files: frames and times of every container, clips, rotations, damage, and what is never opened."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import DataError, VideoLimits, video_ref
from data.videos import container as module
from data.videos.sampling import choose, read_frames
from tests.fakes.videos import level, write_video

pytest.importorskip("av")


def seen(
    file: Path | bytes, limits: VideoLimits | None = None, **times: Any
) -> tuple[list[int], list[float]]:
    """Return the numbers of the frames that are read, and their times."""
    ref = video_ref({"video": file, **times} if times else file, folder=Path("/"))
    chosen = choose(ref.timeline(), limits or VideoLimits())
    images = read_frames(ref, chosen).images
    assert all(image.size == chosen.size for image in images)
    return [level(image) for image in images], [round(second, 3) for second in chosen.seconds]


CONTAINERS = [
    ("a.mp4", "libx264"),
    ("a.mkv", "libx264"),
    ("a.mov", "mpeg4"),
    ("a.webm", "libvpx-vp9"),
    ("a.avi", "mpeg4"),
    ("a.ts", "libx264"),
    ("a.gif", "gif"),
]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_each_container_gives_the_same_frames(tmp_path: Path, name: str, codec: str) -> None:
    file = write_video(tmp_path / name, codec=codec)
    timeline = video_ref(file).timeline()
    assert (len(timeline), timeline.rate, timeline.duration) == (30, 10.0, pytest.approx(3.0))
    assert (timeline.width, timeline.height) == (64, 48)
    # 3 s at 2 frames a second are 6: 0, 5.8, 11.6, 17.4, 23.2 and 29, rounded.
    assert seen(file) == ([0, 6, 12, 17, 23, 29], [0.0, 0.6, 1.2, 1.7, 2.3, 2.9])


def test_uneven_frames_are_read_by_their_time(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", times=[0, 0.1, 0.2, 1, 2, 2.1, 5])
    assert video_ref(file).timeline().rate is None
    assert seen(file) == ([0, 3, 4, 5, 5, 6], [0, 1, 2, 3, 4, 5])


def test_a_clip_begins_with_the_frame_on_the_screen_and_counts_from_its_beginning(tmp_path: Path) -> None:
    even = write_video(tmp_path / "a.mp4")
    assert seen(even, video_start=1.0, video_end=2.0) == ([10, 13, 16, 19], [0.0, 0.3, 0.6, 0.9])
    uneven = write_video(tmp_path / "b.mp4", times=[0, 1, 2, 2.1, 5])
    # From 3 s on the fourth frame is shown, which appeared at 2.1 s; the fifth follows 2 s later.
    assert seen(uneven, video_start=3, video_end=5.5) == ([3, 4], [0.0, 2.0])


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (3.5, None, "its clip from 3.5 to None s is empty"),
        (2, 2, "must end after its beginning"),
        (-1, 2, "at least 0"),
    ],
)
def test_an_impossible_clip_is_refused(tmp_path: Path, start: float, end: float | None, message: str) -> None:
    file = write_video(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=message):
        seen(file, video_start=start, video_end=end)


def test_a_clip_that_ends_after_the_video_ends_with_it(tmp_path: Path) -> None:
    assert seen(write_video(tmp_path / "a.mp4"), video_end=100) == seen(tmp_path / "a.mp4")


@pytest.mark.parametrize("turned", [90, 180, -90])
def test_turned_videos_are_upright(tmp_path: Path, turned: int) -> None:
    file = write_video(tmp_path / "a.mp4", 4, turned=turned, corner=True, size=(64, 32))
    ref = video_ref(file)
    timeline = ref.timeline()
    assert (timeline.width, timeline.height) == ((64, 32) if turned == 180 else (32, 64))
    pixels = np.asarray(next(iter(ref.read([0]))).convert("L")).astype(int)
    half = (pixels.shape[0] // 2, pixels.shape[1] // 2)
    bright = {
        (row, column)
        for row in (0, 1)
        for column in (0, 1)
        if pixels[row * half[0] + half[0] // 2, column * half[1] + half[1] // 2] > 128
    }
    # Counterclockwise by 90 degrees the upper left corner becomes the lower left one.
    assert bright == {{90: (1, 0), 180: (1, 1), -90: (0, 1)}[turned]}


def test_one_frame_is_read_twice(tmp_path: Path) -> None:
    assert seen(write_video(tmp_path / "a.mp4", 1)) == ([0, 0], [0.0, 0.0])


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        seen(tmp_path / "a.mp4")


def test_a_file_of_noise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(DataError, match="cannot be read"):
        seen(tmp_path / "a.mp4")


def test_every_truncation_is_refused_or_gives_the_frames_of_the_whole_file(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv").read_bytes()
    refused = 0
    for share in np.linspace(0.05, 0.99, 12):
        try:
            found = seen(whole[: int(len(whole) * share)])
        except DataError:
            refused += 1
        else:
            # A container without a table of its frames can end early: it has fewer frames, never others.
            assert [round(second * 10) for second in found[1]] == found[0]
    assert refused


def test_a_truncated_mp4_is_refused(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4").read_bytes()
    av_index_first = whole.find(b"moov") < whole.find(b"mdat")
    assert not av_index_first
    with pytest.raises(DataError, match="cannot be read"):
        seen(whole[:-200])


def test_damaged_packets_are_never_guessed(tmp_path: Path) -> None:
    whole = bytearray(write_video(tmp_path / "a.mp4", noise=True, size=(320, 240)).read_bytes())
    expected = seen(bytes(whole))
    start = whole.find(b"mdat") + 4
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(20):
        damaged = bytearray(whole)
        place = start + int(rng.integers(2000, len(whole) - start - 4000))
        damaged[place : place + 200] = rng.bytes(200)
        try:
            found = seen(bytes(damaged))
        except DataError:
            refused += 1
        else:
            assert found[1] == expected[1]
    assert refused


def test_no_mutation_of_a_file_ends_the_process_or_raises_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    read = 0
    for name, codec in CONTAINERS:
        whole = write_video(tmp_path / name, 12, codec=codec).read_bytes()
        for _ in range(25):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 6):
                damaged[place] = int(rng.integers(256))
            try:
                found = seen(bytes(damaged))
            except DataError:
                continue
            read += 1
            assert len(found[0]) == len(found[1]) >= 2
    assert read


def test_a_file_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    ref = video_ref(write_video(tmp_path / "a.mp4"))
    assert len(ref.timeline()) == 30
    write_video(tmp_path / "a.mp4", 20)
    assert len(ref.timeline()) == 20
    assert level(next(iter(ref.read([19])))) == 19


def test_a_known_file_is_not_examined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = video_ref(write_video(tmp_path / "a.mp4"))
    ref.timeline()
    monkeypatch.setattr(module, "_read_index", None)
    assert len(ref.timeline()) == 30
    assert [level(image) for image in ref.read([3, 20])] == [3, 20]
    clip = video_ref({"video": str(tmp_path / "a.mp4"), "video_start": 2})
    assert len(clip.timeline()) == 10


def test_many_videos_leave_nothing_in_memory(tmp_path: Path) -> None:
    """Decoders and frames are freed: a frame here is 0.9 MB, and 150 videos have 900 of them."""
    file = write_video(tmp_path / "a.mp4", size=(640, 480))

    def read(times: int) -> int:
        for _ in range(times):
            seen(file)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") // 2**20

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    before = read(100)  # until the allocator has its pools
    assert read(150) - before < 60


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path}/a.mp4\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.m3u8").write_text(playlist)
    (tmp_path / "b.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path}/a.mp4\n")
    for name in ("a.m3u8", "b.mp4"):
        with pytest.raises(DataError, match="cannot be read"):
            seen(tmp_path / name)


def test_a_file_without_pictures_is_refused(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="has no pictures"):
        seen(buffer.getvalue())


def test_large_frames_and_long_files_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_video(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="64 × 48 pixels, more than 1,000"):
        video_ref(file, max_pixels=1000).timeline()
    monkeypatch.setattr(module, "MAX_FRAMES", 20)
    with pytest.raises(DataError, match="more than 20 frames"):
        video_ref(file).timeline()


def test_decoding_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = video_ref(write_video(tmp_path / "a.mp4"))
    chosen = choose(ref.timeline(), VideoLimits())
    monkeypatch.setattr(module, "MAX_SECONDS", 0.0)
    module._examined.clear()
    with pytest.raises(DataError, match="takes too long"):
        ref.timeline()
    monkeypatch.setattr(module, "MAX_SECONDS", 100.0)
    ref.timeline()
    monkeypatch.setattr(module, "MAX_SECONDS", 0.0)
    with pytest.raises(DataError, match="takes"):
        read_frames(ref, chosen)


def test_only_what_leads_to_the_chosen_frames_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_video(tmp_path / "a.mp4", 600)
    ref = video_ref(file)
    ref.timeline()
    decoded = 0
    original = module._Decoder.at

    def counting(self: Any, stamp: int) -> Any:
        def counted(frames: Any) -> Any:
            nonlocal decoded
            for frame in frames:
                decoded += 1
                yield frame

        if not getattr(self, "counted", None):
            self._container = _Counting(self._container, counted)
            self._frames, self.counted = counted(self._frames), True
        return original(self, stamp)

    class _Counting:
        def __init__(self, container: Any, counted: Any) -> None:
            self.container, self.counted = container, counted

        def seek(self, *arguments: Any, **options: Any) -> None:
            self.container.seek(*arguments, **options)

        def decode(self, stream: Any) -> Any:
            return self.counted(self.container.decode(stream))

    monkeypatch.setattr(module._Decoder, "at", counting)
    # Keyframes are 12 frames apart.
    assert [level(image) % 32 for image in ref.read([0, 300, 599])] == [0, 300 % 32, 599 % 32]
    assert 3 <= decoded <= 3 * 16
