"""Opening and verifying: nothing damaged passes."""

import numpy as np
import pytest
from made_up import contents

from vqlib.data import open_split, reader, verify
from vqlib.errors import DataError

PER_IMAGE = 8 * 8 * 3


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_split_has_explicit_shape_and_cannot_be_written(prepared_once):
    split = open_split(prepared_once, "train")
    assert split.name == "train" and split.classes == ["photo"]
    assert split.images.shape == (2100, 8, 8, 3) and split.images.dtype == np.uint8
    assert split.labels.shape == (2100,) and split.labels.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 0


def test_opening_draws_nothing_from_the_global_generators(prepared_once):
    import random

    random.seed(0)
    np.random.seed(0)
    expected = random.Random(0).random(), np.random.RandomState(0).rand()
    open_split(prepared_once, "test")
    assert (random.random(), np.random.rand()) == expected


@pytest.mark.parametrize("by", [-1, -PER_IMAGE, 1, PER_IMAGE])
def test_a_file_of_another_size_is_refused(prepared, by):
    path = prepared / "test.u8"
    content = path.read_bytes()
    path.write_bytes(content[:by] if by < 0 else content + bytes(by))
    with pytest.raises(DataError, match=r"test.u8 has [\d,]+ bytes, 109,056 bytes belong there"):
        open_split(prepared, "test")
    with pytest.raises(DataError, match=r"test.u8 has"):
        verify(prepared)


def test_a_swapped_file_is_refused(prepared):
    images = np.fromfile(prepared / "test.u8", np.uint8).reshape(-1, PER_IMAGE)
    images[::-1].tofile(prepared / "test.u8")
    with pytest.raises(DataError, match="damaged in chunk 0"):
        open_split(prepared, "test")


@pytest.mark.parametrize("name", ["train.u8", "train.labels.npy"])
def test_a_missing_file_is_refused(prepared, name):
    (prepared / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        open_split(prepared, "train")


def test_a_missing_manifest_says_what_to_run(tmp_path):
    with pytest.raises(
        DataError, match=r"manifest.json is missing: run the prepare stage first .*vqlib.data prepare x"
    ):
        open_split(tmp_path / "x", "train")


def test_another_image_size_or_split_is_refused(prepared_once):
    with pytest.raises(DataError, match="holds images of 8 px, asked for were 32 px"):
        open_split(prepared_once, "train", image_size=32)
    with pytest.raises(DataError, match="it may be one of train, validation, test"):
        open_split(prepared_once, "val")


def test_another_format_is_refused(prepared, monkeypatch):
    monkeypatch.setattr(reader, "FORMAT", 2)
    with pytest.raises(DataError, match="is of format 1, this program reads 2"):
        open_split(prepared, "train")


def test_verify_finds_every_flipped_bit_in_images(prepared):
    assert verify(prepared)["splits"]["train"]["count"] == 2100
    draw = np.random.default_rng(0)
    for chunk in range(3):
        first = chunk * reader.CHUNK * PER_IMAGE
        flip(prepared / "train.u8", first + int(draw.integers(50 * PER_IMAGE)), bit=chunk)
    with pytest.raises(DataError) as caught:
        verify(prepared)
    lines = str(caught.value).splitlines()
    assert [f"train.u8 is damaged in chunk {chunk} " in line for chunk, line in enumerate(lines)] == [True] * 3


def test_verify_finds_every_flipped_bit_in_labels_and_manifest(prepared):
    good = contents(prepared)
    draw = np.random.default_rng(1)
    for name in ("test.labels.npy", "manifest.json") * 20:
        position = int(draw.integers(128 if name.endswith("npy") else 0, len(good[name])))
        flip(prepared / name, position, bit=int(draw.integers(8)))
        with pytest.raises(DataError, match=name):
            verify(prepared)
        with pytest.raises(DataError, match=name):
            open_split(prepared, "test")
        (prepared / name).write_bytes(good[name])
    verify(prepared)


def test_verify_finds_a_flipped_bit_in_the_header_of_labels(prepared):
    path = prepared / "test.labels.npy"
    flip(path, path.read_bytes().index(b"<i8"))  # "=i8" gives the same labels
    with pytest.raises(DataError, match=r"test.labels.npy is damaged in its header"):
        verify(prepared)


def test_labels_that_would_run_code_are_refused(prepared):
    np.save(prepared / "test.labels.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"labels.npy is missing or damaged"):
        open_split(prepared, "test")
