"""The pictures and numbers of notebooks/01_prepare.ipynb."""

import numpy as np
import pytest

from vqlib import sheets
from vqlib.data import Split


def split_of(images: np.ndarray) -> Split:
    return Split("train", images, np.zeros(len(images), np.int64), ["one"], "digest")


def drawn(count: int, size: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_a_small_split_shows_each_image_once():
    shown = sheets.contact_sheet([split_of(np.full((5, 4, 4, 3), 7, np.uint8))], columns=4, rows=2).axes[0].images[0]
    values = np.asarray(shown.get_array())
    assert values.shape == (8, 16, 3)
    assert (values == 7).sum() == 5 * 4 * 4 * 3 and (values == 255).sum() == 3 * 4 * 4 * 3


def test_the_blind_error_is_that_of_the_average_training_image():
    train, test = drawn(40), drawn(30)[::-1]
    average = train.astype(float).mean(axis=0)
    expected = (((test - average) / 127.5) ** 2).mean()
    assert sheets.blind_error(split_of(train), split_of(test)) == pytest.approx(expected, rel=1e-6)


def test_the_blind_error_of_a_large_split_reads_a_part_of_it():
    class Counting:
        shape, read = (10**9, 4, 4, 3), 0

        def __len__(self):
            return self.shape[0]

        def __getitem__(self, position):
            Counting.read += 1
            return np.full(self.shape[1:], position % 2, np.uint8)

    large = Split("train", Counting(), np.zeros(1, np.int64), ["one"], "digest")
    assert 0 < sheets.blind_error(large, large, most=100) < 1e-3
    assert Counting.read == 200
