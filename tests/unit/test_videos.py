"""Frames of videos as images: numbers, times, turned and cut files, and what is no video."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from filmed import HEIGHT, WIDTH, number_of, write_video

from solo_ood.data.frames import read_frames
from solo_ood.data.pixels import Unreadable, header, load
from solo_ood.data.videos import file_of, frame_of, frame_path, probe
from solo_ood.embedding.extract import in_turns
from solo_ood.embedding.store import store_key
from solo_ood.errors import UserError

av = pytest.importorskip("av")
KINDS = [("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video")]


def names(frames) -> list[str]:
    return [frames.name(path) for path in frames.paths]


def number_at(path: Path) -> int:
    return number_of(load(path))


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_a_frame_is_the_same_in_any_order(tmp_path, name, codec):
    """A codec with frames that depend on later ones, one without times, and one of broadcasts."""
    video = write_video(tmp_path / name, 20, codec)
    frames = read_frames(video)
    assert names(frames) == [f"{name}/frame_{number:06d}.png" for number in range(20)]
    order = [*range(20), 19, 3, 3, 11, 0, 12, 5, 7]
    assert [number_at(frames.paths[n]) for n in order] == order
    assert set(frames.clips) == {name}
    np.testing.assert_allclose(list(frames.seconds.values()), np.arange(20) / 10, atol=1e-6)
    shown = header(frames.paths[0])
    assert (shown.width, shown.height, shown.orientation) == (WIDTH, HEIGHT, 1)


def test_fps_takes_the_first_frame_of_each_part_of_a_second(tmp_path):
    write_video(tmp_path / "b_2.mp4", 25)
    write_video(tmp_path / "b_10.mp4", 9, rate=2)
    frames = read_frames(tmp_path, fps=4)
    taken = [(video, number) for video, number in map(frame_of, frames.paths)]
    assert [number for video, number in taken if video.name == "b_2.mp4"] == [
        *(0, 3, 5, 8, 10, 13, 15, 18, 20, 23),
    ]
    assert [number for video, number in taken if video.name == "b_10.mp4"] == list(range(9))
    assert frames.clips[0] == "b_2.mp4" and frames.clips[-1] == "b_10.mp4"
    assert "19 of 34 frames of 2 videos" in frames.notes
    assert {number_at(path) for path in frames.paths[:3]} == {0, 3, 5}


def test_a_list_may_name_videos_beside_images_and_a_pattern_looks_at_their_names(tmp_path):
    from PIL import Image

    write_video(tmp_path / "day_1.mp4", 4)
    Image.new("RGB", (8, 8)).save(tmp_path / "night_7.png")
    (tmp_path / "list.txt").write_text("night_7.png\nday_1.mp4\n")
    frames = read_frames(tmp_path / "list.txt", r"^([a-z]+)_")
    assert frames.clips == ("night", *["day"] * 4) and len(frames.seconds) == 4
    beside = read_frames(tmp_path)
    assert names(beside) == ["night_7.png"]
    assert any(note.startswith("1 videos are left out, beside images") for note in beside.notes)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mpeg4"), ("a.ts", "mpeg2video")])
def test_of_a_video_that_was_cut_what_is_there_is_used(tmp_path, name, codec):
    content = write_video(tmp_path / name, 30, codec).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * 0.6)])
    frames = read_frames(tmp_path / name)
    assert 10 <= len(frames) < 25
    assert [number_at(path) for path in frames.paths] == list(range(len(frames)))


def test_of_a_cut_video_that_says_how_many_frames_it_had_the_others_are_counted(tmp_path):
    made = write_video(tmp_path / "whole.mp4", 30)
    with av.open(str(made)) as whole:
        stream = whole.streams.video[0]
        options = {"movflags": "faststart"}  # its index comes first
        with av.open(str(tmp_path / "cut.mp4"), "w", options=options) as copy:
            target = copy.add_stream_from_template(stream)
            for packet in whole.demux(stream):
                if packet.dts is not None:
                    packet.stream = target
                    copy.mux(packet)
    content = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: int(len(content) * 0.7)])
    frames = read_frames(tmp_path / "cut.mp4")
    assert 10 <= len(frames) < 30
    assert f"cut.mp4: {len(frames)} of 30 frames" in " ".join(frames.notes)
    assert number_at(frames.paths[-1]) == len(frames) - 1


def test_a_video_without_its_index_is_left_out_of_others_and_an_error_alone(tmp_path):
    write_video(tmp_path / "good.mp4", 5)
    bad = write_video(tmp_path / "bad.mp4", 5)
    bad.write_bytes(bad.read_bytes()[:-400])
    with pytest.raises(UserError, match="bad.mp4: expected a video stream that can be decoded"):
        read_frames(bad)
    frames = read_frames(tmp_path)
    assert len(frames) == 5 and "1 videos left out, not readable (bad.mp4)" in " ".join(
        frames.notes
    )


def test_a_file_without_pictures_is_one_clear_error(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = np.zeros((1, 4096), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match="sound.mp4: expected a video stream .*file without one"):
        read_frames(tmp_path / "sound.mp4")
    with pytest.raises(UserError, match="text.mp4: expected a video stream .*InvalidData"):
        read_frames(tmp_path / "text.mp4")


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    video = write_video(tmp_path / "a.mp4", 3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"got none. Install solo-ood\[video\]"):
        read_frames(video)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((0, 1, -1, 0), (-1, 0)),  # a telephone held upright: shown turned to the right
        ((-1, 0, 0, -1), (-1, -1)),
        ((0, -1, 1, 0), (0, -1)),
    ],
)
def test_a_video_that_is_stored_turned_is_seen_as_a_player_shows_it(tmp_path, matrix, corner):
    """The black corner, stored at the upper left, is at ``corner`` (column, row; -1 = last)."""
    video = write_video(tmp_path / "a.mp4", 4)

    def box(a: int, b: int, c: int, d: int) -> bytes:
        rows = ((a, b, 0), (c, d, 0))
        fixed = b"".join((x << 16).to_bytes(4, "big", signed=True) for row in rows for x in row)
        return fixed + bytes(8) + (1 << 30).to_bytes(4, "big")

    content = video.read_bytes()
    track = content.index(b"tkhd")
    at = content.index(box(1, 0, 0, 1), track)
    video.write_bytes(content[:at] + box(*matrix) + content[at + 36 :])
    path = read_frames(video).paths[3]
    image = load(path)
    shown = header(path)
    sideways = matrix[0] == 0
    assert image.size == ((HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT))
    assert (shown.width, shown.height) == image.size
    x, y = (4 if side == 0 else size - 5 for side, size in zip(corner, image.size))
    dark = np.asarray(image.convert("L")) < 20
    assert dark[y, x] and dark.mean() < 0.2


def test_another_process_does_not_disturb_the_position_in_a_file(tmp_path):
    paths = read_frames(write_video(tmp_path / "a.mp4", 20)).paths
    assert number_at(paths[2]) == 2  # is open now
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(number_at, paths, chunksize=1) == list(range(20))
    assert [number_at(path) for path in paths[3:9]] == list(range(3, 9))


def test_paths_of_frames_name_their_video_and_no_other_file(tmp_path):
    video = write_video(tmp_path / "a.mp4", 3)
    path = frame_path(video, 2)
    assert frame_of(path) == (video, 2) and file_of(path) == video
    with pytest.raises(Unreadable, match="frame 7 of a video of 3 frames"):
        load(frame_path(video, 7))
    for other in (video, tmp_path / "b.mp4/frame_000001.png", video / "x.png"):
        assert frame_of(other) is None and file_of(other) == other
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    assert frame_of(folder / "frame_000001.png") is None


def test_embeddings_belong_to_the_video_as_it_is(tmp_path):
    video = write_video(tmp_path / "a.mp4", 3)
    paths = [frame_path(video, 0)]
    key = store_key(paths, tmp_path, "", "")
    assert store_key(paths, tmp_path, "", "") == key
    os.utime(video, (1, 1))
    assert store_key(paths, tmp_path, "", "") != key
    assert len(probe(video)) == 3


def test_each_worker_reads_neighbours():
    assert in_turns(list(range(10)), 1, 2) == list(range(10))
    rows = in_turns(list(range(22)), 2, 3)
    assert sorted(rows) == list(range(22))
    batches = [rows[start : start + 3] for start in range(0, 22, 3)]
    assert sum(batches[0::2], []) == list(range(12)) and sum(batches[1::2], []) == [*range(12, 22)]
