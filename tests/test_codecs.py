"""Mosaics hold every image apart, and files cost what they cost."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from support import make_experiment, make_split

from vqlib import codecs


@pytest.mark.parametrize(("images", "size", "tile"), [(9, 16, 16), (4, 20, 32), (1, 12, 16)])
def test_a_mosaic_gives_its_images_back(images, size, tile):
    pixels = np.random.default_rng(0).integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    mosaic = codecs.to_mosaic(pixels, tile)
    side = round(images**0.5)
    assert mosaic.shape == (side * tile, side * tile, 3)
    assert np.array_equal(codecs.from_mosaic(mosaic, tile, size), pixels)
    assert np.array_equal(mosaic[:size, (side - 1) * tile :][:, :size], pixels[side - 1])  # along the row first
    assert np.array_equal(mosaic[tile - 1, :size], pixels[0, -1])  # what lies between is the border repeated


def test_no_block_of_jpeg_holds_two_images():
    """An image's neighbour may only change what the smoothing of halved chroma carries over its border."""
    pixels = make_split(4, 16).images
    other = pixels.copy()
    other[1:] = 255 - other[1:]
    decoded = [codecs.from_mosaic(codecs.through(codecs.to_mosaic(p, 16), "jpeg", 50)[1], 16, 16)[0]
               for p in (pixels, other)]  # fmt: skip
    assert np.array_equal(decoded[0][:15, :15], decoded[1][:15, :15])


@pytest.fixture(scope="module")
def found():
    codecs_of_few = pytest.MonkeyPatch()
    codecs_of_few.setattr(codecs, "QUALITIES", {"jpeg": (1, 50, 95), "webp": (0, 50, 95)})
    yield codecs.measure_codecs(make_split(70, 16, name="test"))
    codecs_of_few.undo()


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_more_bits_err_less_and_single_files_pay_for_their_headers(found, codec):
    for kind in ("mosaic", "files"):
        rows = found["codecs"][codec][kind]
        assert [row["quality"] for row in rows] == [codecs.QUALITIES[codec][0], 50, 95]
        for key, sign in (("bpp", 1), ("psnr", 1), ("ssim", 1), ("mse", -1)):
            assert all(sign * np.diff([row[key] for row in rows]) > 0), key
    header = {"jpeg": 300, "webp": 30}[codec]  # bytes at least
    for whole, single in zip(*found["codecs"][codec].values(), strict=True):
        assert single["bpp"] > whole["bpp"] + 8 * header / 256 / 2


def test_rate_and_psnr_are_those_of_pillow_and_scikit_image(found):
    assert (found["images"], found["test_images"], found["mosaic"]) == (64, 70, {"rows": 8, "columns": 8, "tile": 16})
    split = make_split(70, 16, name="test")
    chosen = split.images[np.linspace(0, 69, 64).round().astype(int)]
    row = found["codecs"]["jpeg"]["files"][1]
    total, psnr = 0, []
    for image in chosen:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=50, optimize=True, subsampling=2)  # 2: halved both ways
        total += len(file.getvalue())
        psnr.append(peak_signal_noise_ratio(image, np.asarray(Image.open(file)), data_range=255))
    assert row["bpp"] == 8 * total / (64 * 256)
    assert row["psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)


def test_images_of_other_sizes_are_aligned_and_their_true_pixels_counted(monkeypatch):
    monkeypatch.setattr(codecs, "QUALITIES", {"jpeg": (50,)})
    found = codecs.measure_codecs(make_split(5, 20, name="test"))
    assert found["mosaic"] == {"rows": 2, "columns": 2, "tile": 32}
    split = make_split(5, 20, name="test")
    mosaic = codecs.to_mosaic(split.images[[0, 1, 3, 4]], 32)
    assert found["codecs"]["jpeg"]["mosaic"][0]["bpp"] == 8 * codecs.through(mosaic, "jpeg", 50)[0] / (4 * 400)


def test_the_file_is_the_same_every_time_and_names_its_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(codecs, "QUALITIES", {"jpeg": (1,), "webp": (0,)})
    monkeypatch.setattr(codecs, "open_split", lambda folder, name, size: make_split(10, size, name=name))
    experiment = make_experiment(tmp_path)
    codecs.write_codecs(experiment)
    file = tmp_path / "results/smoke/codecs.json"
    first = file.read_bytes()
    codecs.write_codecs(experiment)
    assert file.read_bytes() == first
    content = json.loads(first)
    assert content["experiment"] == "smoke"
    assert content["versions"]["pillow"] == Image.__version__
    assert all(content["versions"].values())
    assert "4:2:0" in content["settings"]["jpeg"]
