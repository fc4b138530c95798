"""Embeddings on disk: resumed, shared by processes, found again by what they were made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solo_ood.embedding.store import (
    DONE,
    MISSING,
    UNREADABLE,
    EmbeddingStore,
    describe,
    store_key,
)

SHAPES = {"pooled": ((3,), "float32"), "patches": ((2, 4), "float16")}


def feats(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Features that tell which row they are of."""
    return {
        kind: np.broadcast_to(rows.reshape(-1, *[1] * len(shape)) + 1, (len(rows), *shape))
        for kind, (shape, _) in SHAPES.items()
    }


def write(store: EmbeddingStore, rows: list[int], unreadable: tuple[int, ...] = ()) -> None:
    array = np.array(rows)
    store.write(array, feats(array), ~np.isin(array, unreadable))


def whole(store: EmbeddingStore) -> bool:
    every = feats(np.arange(len(store.status)))
    return all(np.array_equal(store.arrays[kind], every[kind]) for kind in SHAPES)


def test_a_new_store_has_everything_to_do_and_the_stated_types(tmp_path):
    store = EmbeddingStore(tmp_path / "a" / "b", SHAPES, 5)
    assert store.missing_rows.tolist() == list(range(5)) and not store.arrays["pooled"].any()
    assert (store.arrays["patches"].shape, store.arrays["patches"].dtype) == ((5, 2, 4), "float16")
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {
        "pooled.npy",
        "patches.npy",
        "sizes.npy",
        "status.npy",
    }


def test_a_store_goes_on_where_a_killed_one_stopped(tmp_path):
    write(EmbeddingStore(tmp_path, SHAPES, 6), [4, 1], unreadable=(1,))
    store = EmbeddingStore(tmp_path, SHAPES, 6)
    assert store.status.tolist() == [MISSING, UNREADABLE, MISSING, MISSING, DONE, MISSING]
    assert store.missing_rows.tolist() == [0, 1, 2, 3, 5]  # what could not be read is tried again
    np.testing.assert_array_equal(store.arrays["pooled"][4], feats(np.array([4]))["pooled"][0])
    write(store, store.missing_rows.tolist())
    again = EmbeddingStore(tmp_path, SHAPES, 6)
    assert whole(again) and len(again.missing_rows) == 0


def test_sizes_of_images_are_kept_and_0_where_an_older_cache_has_none(tmp_path):
    write(EmbeddingStore(tmp_path, SHAPES, 3), [0])
    rows, sizes = np.array([2, 1]), np.array([[48, 64], [0, 0]])
    store = EmbeddingStore(tmp_path, SHAPES, 3)
    store.write(rows, feats(rows), np.array([True, False]), sizes)
    assert EmbeddingStore(tmp_path, SHAPES, 3).sizes.tolist() == [[0, 0], [0, 0], [48, 64]]
    (tmp_path / "sizes.npy").unlink()
    again = EmbeddingStore(tmp_path, SHAPES, 3)
    assert not again.sizes.any() and again.status.tolist() == [DONE, UNREADABLE, DONE]


def test_a_row_is_not_marked_before_all_of_its_features_are_there(tmp_path):
    store = EmbeddingStore(tmp_path, SHAPES, 4)
    rows = np.array([0, 1])
    with pytest.raises(KeyError, match="patches"):  # as if killed between the two
        store.write(rows, {"pooled": feats(rows)["pooled"]}, np.array([True, True]))
    assert store.arrays["pooled"][:2].all() and store.missing_rows.tolist() == [0, 1, 2, 3]


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chunks=st.permutations(range(12)), size=st.integers(1, 5), bad=st.sets(st.integers(0, 11)))
def test_any_order_and_batch_size_fill_the_same_store(tmp_path_factory, chunks, size, bad):
    folder = tmp_path_factory.mktemp("store")
    for start in range(0, 12, size):
        write(EmbeddingStore(folder, SHAPES, 12), chunks[start : start + size], tuple(bad))
    store = EmbeddingStore(folder, SHAPES, 12)
    assert whole(store)
    assert set(np.flatnonzero(store.status == UNREADABLE)) == bad == set(store.missing_rows)


def test_two_stores_on_one_folder_see_each_others_rows(tmp_path):
    one, two = (EmbeddingStore(tmp_path, SHAPES, 4) for _ in range(2))
    write(one, [0, 2])
    write(two, [1, 3])
    assert whole(one) and whole(two) and len(one.missing_rows) == len(two.missing_rows) == 0


def test_processes_that_start_at_the_same_time_lose_nothing(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from solo_ood.embedding.store import EmbeddingStore\n"
        "start, folder = int(sys.argv[1]), Path(sys.argv[2])\n"
        "sys.stdin.read()\n"  # all are let go at once
        "store = EmbeddingStore(folder, {'x': ((2,), 'float32')}, 400)\n"
        "for row in range(start, 400, 4):\n"
        "    store.write(np.array([row]), {'x': np.full((1, 2), row + 1.0)}, np.array([True]))\n"
    )
    command = [sys.executable, "-c", program]
    running = [
        subprocess.Popen([*command, str(n), str(tmp_path)], stdin=subprocess.PIPE) for n in range(4)
    ]
    for process in running:
        process.stdin.close()
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    store = EmbeddingStore(tmp_path, {"x": ((2,), "float32")}, 400)
    np.testing.assert_array_equal(store.arrays["x"][:, 0], np.arange(400) + 1)
    assert (
        len(store.missing_rows) == 0 and len(list(tmp_path.iterdir())) == 3
    )  # nothing half-made stays


@pytest.mark.parametrize(
    "content",
    [
        lambda file: np.save(file, np.zeros((4, 3), np.float64)),
        lambda file: np.save(file, np.zeros((5, 3), np.float32)),
        lambda file: np.save(file, np.array([{}] * 4), allow_pickle=True),
        lambda file: file.write(b"no array"),
        lambda file: None,
        lambda file: np.save(file, np.zeros((4, 3), np.float32)) or file.truncate(150),
    ],
    ids=["type", "shape", "pickle", "text", "empty", "cut"],
)
def test_another_file_in_its_place_is_an_error(tmp_path, content):
    with (tmp_path / "pooled.npy").open("wb") as file:
        content(file)
    expected = r"cache .*pooled.npy: expected an array of shape \(4, 3\) and type float32, got .*"
    with pytest.raises(ValueError, match=expected + "Delete its folder"):
        EmbeddingStore(tmp_path, SHAPES, 4)


@pytest.fixture
def images(tmp_path) -> list[Path]:
    paths = [tmp_path / "data" / "a" / "1.jpg", tmp_path / "data" / "b" / "1.jpg"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"image")
    return paths


def key(paths: list[Path], fingerprint: str = "net", transform: str = "crop") -> str:
    return store_key(paths, paths[0].parent.parent, fingerprint, transform)


def test_the_key_is_a_name_that_stays(images):
    assert key(images) == key(images) and key(images).isalnum() and len(key(images)) == 20


def test_the_key_changes_with_a_file_its_time_its_name_its_place_in_the_list(images):
    keys = [key(images), key(images[:1]), key(images[::-1])]
    for number, change in enumerate(
        (
            lambda path: os.utime(path, ns=(1, path.stat().st_mtime_ns + 1)),
            lambda path: _resized(path),
            lambda path: images.__setitem__(1, path.rename(path.with_name("2.jpg"))),
        )
    ):
        change(images[1])
        keys.append(key(images))
        assert len(set(keys)) == number + 4


def _resized(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"image!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_the_key_changes_with_the_network_and_the_transform(images):
    keys = [key(images), key(images, "other"), key(images, transform="pad")]
    assert len({*keys, key(images, "net\ncrop", ""), key(images, "", "net\ncrop")}) == 5


def test_the_key_does_not_change_with_where_the_data_lie(images, tmp_path):
    before = key(images)
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert key([moved / path.relative_to(tmp_path / "data") for path in images]) == before


def test_a_folder_says_what_it_holds(tmp_path):
    describe(tmp_path / "a" / "key", {"network": "resnet18", "data": "fit"})
    about = json.loads((tmp_path / "a" / "key" / "about.json").read_text())
    assert about == {"network": "resnet18", "data": "fit"}
