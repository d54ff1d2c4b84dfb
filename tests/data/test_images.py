"""Decoding and resizing, against statements of the protocols that share no code with ours."""

import io
import struct
import zlib

import numpy as np
import pytest
from made_up import jpeg, picture
from PIL import Image

from vqlib.data.images import PROTOCOLS, BadImageError, decode, to_array

SHAPES = [(37, 91), (91, 37), (64, 64), (97, 64), (500, 333), (9, 200), (31, 7), (1, 3)]  # width, height


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def guided_diffusion(image: Image.Image, size: int) -> np.ndarray:
    """center_crop_arr of openai/guided-diffusion, in its own words."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    array = np.array(image)
    crop_y = (array.shape[0] - size) // 2
    crop_x = (array.shape[1] - size) // 2
    return array[crop_y : crop_y + size, crop_x : crop_x + size]


def torchvision_bilinear(image: Image.Image, size: int) -> np.ndarray:
    transforms = pytest.importorskip("torchvision.transforms")
    return np.array(transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])(image))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize(("protocol", "reference"), [("adm", guided_diffusion), ("tv_bilinear", torchvision_bilinear)])
def test_protocol_equals_its_source(protocol, reference, size, shape):
    image = picture(1, *shape)
    assert np.array_equal(np.asarray(PROTOCOLS[protocol](image, size)), reference(image, size))


def test_box_squash_is_the_mean_of_blocks():
    image = picture(2, 8 * 5, 8 * 3)
    across = np.floor(np.asarray(image, dtype=float).reshape(8 * 3, 8, 5, 3).mean(axis=2) + 0.5)  # (y, column, channel)
    blocks = np.floor(across.reshape(8, 3, 8, 3).mean(axis=1) + 0.5)  # (row, column, channel)
    assert np.array_equal(np.asarray(PROTOCOLS["box_squash"](image, 8)), blocks)


def test_protocols_differ():
    results = [np.asarray(protocol(picture(3, 91, 64), 16)) for protocol in PROTOCOLS.values()]
    assert all(result.shape == (16, 16, 3) and result.dtype == np.uint8 for result in results)
    assert not np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[2])


@pytest.mark.parametrize(
    ("mode", "kind", "odd"),
    [
        ("L", "JPEG", ["grayscale"]),
        ("CMYK", "JPEG", ["cmyk"]),
        ("RGB", "PNG", ["png_as_jpeg"]),
        ("RGBA", "PNG", ["png_as_jpeg"]),
        ("P", "PNG", ["png_as_jpeg"]),
        ("LA", "PNG", ["grayscale", "png_as_jpeg"]),
        ("1", "PNG", ["grayscale", "png_as_jpeg"]),
    ],
)
def test_every_mode_becomes_what_pillow_makes_of_it(mode, kind, odd):
    content = encoded(picture(4).convert(mode), kind)
    image, found = decode(content, "n00000001_1.JPEG")
    assert found == odd
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_16_bit_gray_does_not_turn_white():
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    image, odd = decode(encoded(Image.fromarray(values), "PNG"), "x.png")
    assert odd == ["grayscale", "16_bit"]
    assert np.array_equal(np.asarray(image)[:, :, 1], np.arange(256).reshape(16, 16))


def test_exif_never_rotates():
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    assert np.array_equal(np.asarray(decode(jpeg(5, exif=exif), "x")[0]), np.asarray(decode(jpeg(5), "x")[0]))


def test_jpeg_is_decoded_in_full_before_it_is_made_small():
    content = encoded(picture(6, 256, 256), "JPEG", quality=95)
    full = Image.open(io.BytesIO(content)).convert("RGB")
    draft = Image.open(io.BytesIO(content))
    draft.draft("RGB", (32, 32))
    expected, drafted = guided_diffusion(full, 16), guided_diffusion(draft.convert("RGB"), 16)
    assert np.array_equal(to_array(content, "x.JPEG", 16, "adm")[0], expected)
    assert not np.array_equal(expected, drafted)


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html><body>404</body></html>", "not a JPEG or PNG"),
        (encoded(picture(7), "GIF"), "not a JPEG or PNG"),
        (jpeg(7)[:-40], "truncated"),
        (jpeg(7)[:100], ""),
        (encoded(picture(7), "PNG")[:-60], ""),
        (bomb(), "pixels"),
        (encoded(Image.new("L", (1, 60_000)), "PNG"), "too thin"),
    ],
    ids=["empty", "html", "gif", "truncated", "header", "png", "bomb", "thin"],
)
def test_a_bad_image_has_a_reason_of_one_line(content, reason):
    with pytest.raises(BadImageError) as caught:
        to_array(content, "x.JPEG", 64, "adm")
    assert reason in str(caught.value) and str(caught.value) and "\n" not in str(caught.value)


def test_very_thin_images_pass():
    assert to_array(encoded(picture(8, 1, 2000), "JPEG"), "x.JPEG", 32, "adm")[0].shape == (32, 32, 3)
