"""The compiled ``adm`` against guided-diffusion's words, byte for byte, and what happens where it cannot be had."""

import io
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import contents, photos, picture
from PIL import Image
from test_images import encoded, guided_diffusion

from vqlib.data import assembly, prepare
from vqlib.data.images import BadImageError, adm, quick_adm, to_array

quick = pytest.importorskip("vqlib.data.quick", reason="numba is not installed")

JPEGS = {  # how a JPEG is written -> options of Pillow
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0": {"subsampling": "4:2:0", "quality": 95},
    "progressive": {"progressive": True, "subsampling": "4:2:0"},
    "restart markers": {"restart_marker_blocks": 3},
    "EXIF": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
}
SIDES = [(500, 375), (375, 500), (333, 500), (499, 333), (131, 127), (128, 128), (300, 257), (1024, 259), (93, 89)]


@pytest.fixture(autouse=True)
def compiled():
    quick_adm.cache_clear()
    assert quick_adm() is not adm, "compiled, it gives other bytes than Pillow here"


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", JPEGS)
def test_every_kind_of_jpeg(kind):
    for seed, (width, height) in enumerate(SIDES):
        content = encoded(picture(seed, width, height), "JPEG", **JPEGS[kind])
        expected = guided_diffusion(Image.open(io.BytesIO(content)).convert("RGB"), 128)
        array, odd = to_array(content, "x.JPEG", 128, "adm", quick=True)
        assert np.array_equal(array, expected) and array.flags.c_contiguous and odd == []


def test_noise_of_any_shape():
    draw = random.Random(0)
    for seed in range(300):
        size, width = draw.choice([8, 12, 32, 64, 128]), int(2 ** draw.uniform(3, 9.5))
        image = noise(seed, width, max(1, int(width * 2 ** draw.uniform(-3, 2))))
        assert np.array_equal(quick.adm(image, size, adm), guided_diffusion(image, size)), (image.size, size)


def test_photographs():
    photographs = Path(pytest.importorskip("skimage").__file__).parent / "data"
    for path in sorted([*photographs.glob("*.jpg"), *photographs.glob("*.png")]):
        for size in (32, 128):
            expected, reason = outcome(path.read_bytes(), size, False)
            array, found = outcome(path.read_bytes(), size, True)
            assert np.array_equal(array, expected) and found == reason, path.name


def test_halving_has_means_of_two_and_at_most_one_of_three():
    for side in (*range(2, 400), 1023, 1501, 2999, 4097, 8191):
        first, three = quick._halving.__wrapped__(side)
        assert len(first) == side // 2 and (three == -1 if side % 2 == 0 else three < len(first))


def test_a_picture_in_several_blocks_of_memory_is_left_to_pillow():
    image = noise(0, 2500, 2000)
    with pytest.raises(ValueError):
        quick._words(image)
    assert np.array_equal(quick.adm(image, 128, adm), guided_diffusion(image, 128))


def outcome(content: bytes, size: int, is_quick: bool) -> tuple[np.ndarray | None, str]:
    """The array or None, and what was said of it."""
    try:
        array, odd = to_array(content, "x.JPEG", size, "adm", is_quick)
    except BadImageError as error:
        return None, str(error)
    return array, ",".join(odd)


def test_damaged_and_odd_files_are_judged_alike():
    draw = random.Random(1)
    cases = [encoded(picture(n, 160, 120).convert(mode), "JPEG") for n, mode in enumerate(("L", "CMYK"))]
    cases += [encoded(picture(3, 160, 120), "PNG"), encoded(Image.new("L", (1, 60_000)), "PNG"), b"", b"<html>"]
    for seed, options in enumerate([*JPEGS.values()] * 5):
        good = encoded(picture(seed, 160, 120), "JPEG", **options)
        cases.append(good[: draw.randrange(len(good))])  # cut off
        cases.append(good[:-2])  # its end marker alone
        for bits in (1, 30):
            damaged = bytearray(good)
            for _ in range(bits):
                damaged[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
            cases.append(bytes(damaged))
        at = draw.randrange(len(good) - 512)
        cases.append(good[:at] + bytes(512) + good[at + 512 :])  # a lost sector
    verdicts = set()
    for content in cases:
        (expected, reason), (array, found) = (outcome(content, 64, is_quick) for is_quick in (False, True))
        assert found == reason and np.array_equal(array, expected)
        verdicts.add(expected is None)
    assert verdicts == {True, False}


def test_prepared_bytes_are_the_same(prepared_once, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "MANY", 1)
    used, original = [], quick.adm
    monkeypatch.setattr(quick, "adm", lambda *these, **those: used.append(1) or original(*these, **those))
    quick_adm.cache_clear()
    prepare(photos(), tmp_path / "quick", workers=1)
    assert contents(tmp_path / "quick") == contents(prepared_once) and len(used) > 2000


@pytest.mark.parametrize("fault", ["numba is missing", "another byte", "nothing can be compiled"])
def test_pillow_where_it_cannot_be_had(fault, monkeypatch):
    def broken(*arguments):
        raise RuntimeError

    if fault == "numba is missing":
        monkeypatch.setitem(sys.modules, "numba", None)
        monkeypatch.delitem(sys.modules, "vqlib.data.quick")
        monkeypatch.delattr("vqlib.data.quick")
    else:
        monkeypatch.setattr(quick, "_weigh_rows", broken if fault.startswith("nothing") else off_by_one)
    quick_adm.cache_clear()
    try:
        assert quick_adm() is adm
        image = noise(0, 300, 200)
        assert np.array_equal(to_array(image, "x", 64, "adm", quick=True)[0], guided_diffusion(image, 64))
    finally:
        quick_adm.cache_clear()


def off_by_one(pixels: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return quick_weigh(pixels, first, weights) ^ np.uint8(1)


quick_weigh = quick._weigh_rows
