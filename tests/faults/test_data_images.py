"""1,000 damaged or odd images: each is what it should be, or dropped with its reason, or shown by the source's digests.

A kind is a function of (a good JPEG, a random generator) to (the file, its reference or None). The reference is the
array that the file has to give; None where there is nothing to be seen in it.
"""

import hashlib
import io
import random
import struct
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from vqlib.data import open_split, prepare
from vqlib.data.images import BadImageError, to_array
from vqlib.data.sources.digests import fits
from vqlib.params import ROOT

sys.path.insert(0, str(ROOT / "tests" / "data"))
from made_up import jpeg, picture, write_folder
from made_up_imagenet import imagenet, labels_as, val_images

pytestmark = pytest.mark.faults
EACH = 28
SIZE = 32
LIMIT = 5  # seconds for one image
WIDTH, HEIGHT = 96, 64


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def resized(image: Image.Image) -> np.ndarray:
    """guided-diffusion's center_crop_arr."""
    image = image.convert("RGB")
    while min(*image.size) >= 2 * SIZE:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = SIZE / min(*image.size)
    array = np.array(image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC))
    top, left = (array.shape[0] - SIZE) // 2, (array.shape[1] - SIZE) // 2
    return array[top : top + SIZE, left : left + SIZE]


def seen_in(content: bytes) -> np.ndarray:
    return resized(Image.open(io.BytesIO(content)))


def changed(content: bytes, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


def flipped(content: bytes, draw: random.Random, bits: int) -> bytes:
    damaged = bytearray(content)
    for _ in range(bits):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def jpeg_header(content: bytes) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return changed(content, at, b"\xff\xdc\xff\xdc")  # 65,500 x 65,500


def exif(orientation: int) -> Image.Exif:
    values = Image.Exif()
    values[0x0112] = orientation
    return values


def made(mode: str, kind: str, **options):
    """A kind of picture that is a fine one, in the mode and the file format given."""

    def make(good: bytes, draw: random.Random):
        content = encoded(Image.open(io.BytesIO(good)).convert(mode), kind, **options)
        return content, seen_in(content)

    return make


def shaped(width: int, height: int):
    def make(good: bytes, draw: random.Random):
        content = encoded(picture(draw.randrange(1000), width, height), "JPEG")
        return content, seen_in(content)

    return make


def sixteen_bit(good: bytes, draw: random.Random):
    gray = np.asarray(Image.open(io.BytesIO(good)).convert("L"))
    content = encoded(Image.fromarray(gray.astype(np.uint16) * 256 + draw.randrange(256)), "PNG")
    return content, resized(Image.fromarray(gray))


def with_segment(good: bytes, marker: int, payload: bytes) -> bytes:
    return good[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + good[2:]


REENCODED = {
    "progressive": lambda good, draw: (encoded_like(good, progressive=True), seen_in(encoded_like(good))),
    "restart markers": lambda good, draw: (encoded_like(good, restart_marker_blocks=2), seen_in(encoded_like(good))),
    "optimised Huffman tables": lambda good, draw: (encoded_like(good, optimize=True), seen_in(encoded_like(good))),
    "EXIF that says: rotate": lambda good, draw: (
        encoded_like(good, exif=exif(draw.randrange(2, 9))),
        seen_in(encoded_like(good)),
    ),
}


def encoded_like(good: bytes, **options) -> bytes:
    """The same coefficients, whatever the options."""
    return encoded(Image.open(io.BytesIO(good)).convert("RGB"), "JPEG", quality=90, **options)


ODD = {
    **REENCODED,
    "grayscale": made("L", "JPEG"),
    "CMYK": made("CMYK", "JPEG"),
    "4:4:4": made("RGB", "JPEG", subsampling=0),
    "PNG as JPEG": made("RGB", "PNG"),
    "palette PNG": made("P", "PNG"),
    "RGBA PNG": made("RGBA", "PNG"),
    "gray and alpha PNG": made("LA", "PNG"),
    "1-bit PNG": made("1", "PNG"),
    "16-bit PNG": sixteen_bit,
    "1x1": shaped(1, 1),
    "1x2000": shaped(1, 2000),
    "2000x1": shaped(2000, 1),
    "garbage EXIF": lambda good, draw: (
        with_segment(good, 0xE1, b"Exif\0\0" + draw.randbytes(200)),
        seen_in(good),
    ),
    "64 kB of comment": lambda good, draw: (with_segment(good, 0xFE, draw.randbytes(65_000)), seen_in(good)),
    "something after the end": lambda good, draw: (good + draw.randbytes(300), seen_in(good)),
}
BAD = {
    "empty": lambda good, draw: (b"", None),
    "HTML": lambda good, draw: (b"<!DOCTYPE html><html><body>404</body></html>" * draw.randrange(1, 9), None),
    "random bytes": lambda good, draw: (draw.randbytes(len(good)), None),
    "zeros": lambda good, draw: (bytes(len(good)), None),
    "cut in the header": lambda good, draw: (good[: draw.randrange(1, 300)], None),
    "cut in the middle": lambda good, draw: (good[: draw.randrange(700, len(good) - 10)], None),
    "cut by 10 bytes": lambda good, draw: (good[:-10], None),
    "GIF": lambda good, draw: (encoded(picture(1), "GIF"), None),
    "WebP": lambda good, draw: (encoded(picture(1), "WEBP"), None),
    "BMP": lambda good, draw: (encoded(picture(1), "BMP"), None),
    "TIFF": lambda good, draw: (encoded(picture(1), "TIFF"), None),
    "JPEG with a bomb's header": lambda good, draw: (jpeg_header(good), None),
    "PNG with a bomb's header": lambda good, draw: (png_header(60_000, 60_000), None),
}


def a_sector(good: bytes, draw: random.Random) -> int:
    return draw.randrange(len(good) // 128) * 128


DAMAGED = {
    "one flipped bit": lambda good, draw: (flipped(good, draw, 1), seen_in(good)),
    "16 flipped bits": lambda good, draw: (flipped(good, draw, 16), seen_in(good)),
    "sector of zeros": lambda good, draw: (changed(good, a_sector(good, draw), bytes(128))[: len(good)], seen_in(good)),
    "sector of another file": lambda good, draw: (
        changed(good, a_sector(good, draw), draw.randbytes(128))[: len(good)],
        seen_in(good),
    ),
    "sector missing": lambda good, draw: (
        good[: (at := a_sector(good, draw))] + good[at + 128 :],
        seen_in(good),
    ),
    "another picture in its place": lambda good, draw: (jpeg(draw.randrange(5000, 9000)), seen_in(good)),
}
KINDS = ODD | BAD | DAMAGED


def good_jpeg(seed: int) -> bytes:
    return encoded(picture(seed, WIDTH, HEIGHT), "JPEG", quality=90)


def cases(kind: str):
    for seed in range(EACH):
        draw = random.Random(f"{kind} {seed}")
        good = good_jpeg(seed)
        yield good, *KINDS[kind](good, draw)


def test_there_are_enough_of_them():
    assert len(KINDS) >= 25 and len(KINDS) * EACH >= 1000


@pytest.mark.parametrize("kind", KINDS)
def test_equal_or_dropped_or_shown_by_a_digest(kind, attempt):
    for good, content, reference in cases(kind):
        with attempt("images", kind) as seen:
            start = time.monotonic()
            try:
                array, _ = to_array(content, "n00000001_1.JPEG", SIZE, "adm")
            except BadImageError as error:
                assert kind not in ODD and str(error) and "\n" not in str(error)
                seen("dropped")
            else:
                if reference is not None and np.array_equal(array, reference):
                    seen("equal to its reference")
                else:
                    assert kind in DAMAGED and not fits(content, hashlib.sha256(good).hexdigest())
                    seen("shown by its digest alone")
            assert time.monotonic() - start < LIMIT


def test_with_digests_none_passes(attempt, tmp_path):
    """All damaged ones in one tree, beside a list of digests that was made before."""
    damaged = [case for kind in (*BAD, *DAMAGED) for case in cases(kind)]
    names = [f"train/n00000001/n00000001_{number}.JPEG" for number in range(len(damaged))]
    files = {name: content for name, (_, content, _) in zip(names, damaged, strict=True)}
    whole = {f"train/n00000002/n00000002_{number}.JPEG": good_jpeg(number) for number in range(40)}
    files |= whole | {f"val/{name}": content for name, (_, content) in val_images().items()}
    before = files | {name: good for name, (good, *_) in zip(names, damaged, strict=True)}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in before.items())
    files |= labels_as("wnids", val_images()) | {"SHA256SUMS": sums.encode()}
    with attempt("images", "all damaged ones, in a tree with a list of digests") as seen:
        manifest = prepare(imagenet(write_folder(files, tmp_path / "raw")), tmp_path / "out", root=tmp_path, workers=1)
        expected = {name.removeprefix("train/") for name, (good, content, _) in zip(names, damaged, strict=True)
                    if content != good}  # fmt: skip
        assert set(manifest["dropped"]["train"]) | set(manifest["dropped"]["validation"]) == expected
        kept = sum(len(open_split(tmp_path / "out", split).images) for split in ("train", "validation"))
        assert kept == len(whole) + len(names) - len(expected)
        seen(f"{len(expected)} dropped, none kept")
