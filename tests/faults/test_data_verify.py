"""Flipped bits and swapped files in prepared data, and sources that are partial: all found."""

import random
import shutil
import sys

import numpy as np
import pytest

from vqlib.data import open_split, prepare, verify
from vqlib.data.sources import imagenet as imagenet_source
from vqlib.data.sources import resolve
from vqlib.data.sources.listing import Expected
from vqlib.errors import DataError
from vqlib.params import ROOT

sys.path.insert(0, str(ROOT / "tests" / "data"))
from made_up import contents, photos, write_folder
from made_up_imagenet import imagenet
from test_imagenet import MIXED_UP, NOT_WHOLE

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "photos"
    prepare(photos(), folder, workers=1)
    return folder


@pytest.mark.parametrize("name", ["train.u8", "test.u8", "train.labels.npy", "validation.labels.npy", "manifest.json"])
def test_verify_finds_200_flipped_bits(name, folder, attempt):
    path = folder / name
    good = path.read_bytes()
    draw = random.Random(name)
    for _ in range(40):
        with attempt("verify", f"flipped bit in {name}") as seen:
            damaged = bytearray(good)
            damaged[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            try:
                with pytest.raises(DataError, match=name.partition(".")[0]):
                    verify(folder)
            finally:
                path.write_bytes(good)
            seen("found")
    assert verify(folder)


@pytest.mark.parametrize("name", ["train.u8", "validation.u8", "test.u8"])
@pytest.mark.parametrize(
    "change", ["one byte less", "one image less", "one image more", "empty", "another's", "missing"]
)
def test_truncated_or_swapped_files_are_refused_at_open(change, name, folder, attempt, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    path, image = damaged / name, 8 * 8 * 3
    content = path.read_bytes()
    another = np.roll(np.frombuffer(content, np.uint8), image).tobytes()  # the right size, all chunks differ
    changed = {
        **{"one byte less": content[:-1], "one image less": content[:-image], "one image more": content + bytes(image)},
        **{"empty": b"", "another's": another},
    }
    with attempt("open", f"array: {change}") as seen:
        if change == "missing":
            path.unlink()
        else:
            path.write_bytes(changed[change])
        with pytest.raises(DataError, match=name):
            open_split(damaged, name.removesuffix(".u8"))
        (damaged / "manifest.json").unlink()
        prepare(photos(), damaged)
        assert contents(damaged) == contents(folder)
        seen("refused, and made whole by the next prepare")


@pytest.mark.parametrize("case", NOT_WHOLE | MIXED_UP)
def test_partial_sources(case, attempt, monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet_source, "ILSVRC2012", Expected("made-up", 3, 18, 6, 2))
    files, message = (NOT_WHOLE | MIXED_UP)[case]
    with attempt("sources", case) as seen:
        with pytest.raises(DataError) as caught:
            resolve(imagenet(write_folder(files, tmp_path / "raw"), partial=False), tmp_path)
        assert message in str(caught.value) and "\n" not in str(caught.value)
        seen("refused, with what was found and what was expected")
