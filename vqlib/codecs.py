"""JPEG and WebP on the prepared test images: the lines of a rate-distortion figure that every reader knows.

A file's headers alone (JPEG: about 600 bytes) exceed the rate of a 32-pixel image, so many images are put into one
mosaic, each aligned to 16 pixels, the unit of JPEG with halved chroma: no block holds two images. What single files
cost is measured beside it.
"""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image, features

from vqlib.data.reader import Split, open_split
from vqlib.distortion import MEASURES, Means, distortion
from vqlib.files import in_one_line, json_bytes, rounded, write_atomically
from vqlib.params import Experiment

UNIT = 16  # pixels: a minimum coded unit of JPEG with 4:2:0 chroma, and a macroblock of WebP
MOST_PIXELS = 2**21  # of a mosaic
MOST_SIDE = 45  # images along a mosaic's side
FILE_IMAGES = 400  # that are also written one by one
QUALITIES = {
    "jpeg": (1, 4, 6, 8, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95),
    "webp": (0, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95),
}
OPTIONS = {
    "jpeg": {"optimize": True, "subsampling": "4:2:0"},
    "webp": {"method": 4, "lossless": False},
}
SETTINGS = {
    "jpeg": "baseline JPEG by libjpeg, chroma halved in both directions (4:2:0), optimised Huffman tables",
    "webp": "lossy WebP by libwebp, method 4; its chroma is always halved in both directions",
}


def write_codecs(experiment: Experiment) -> dict[str, Any]:
    """Measure the codecs on the prepared test images and write results/<experiment>/codecs.json.

    Raises:
        DataError: nothing is prepared.
    """
    split = open_split(experiment.prepared, "test", experiment.data.image_size)
    result = rounded({"experiment": experiment.name, **measure_codecs(split)})
    with in_one_line(experiment.results):
        write_atomically(experiment.results / "codecs.json", json_bytes(result))
    return result


def measure_codecs(split: Split) -> dict[str, Any]:
    """Rate and distortion of each codec at each quality, on evenly spaced images of ``split``."""
    size = split.images.shape[1]
    tile = -(-size // UNIT) * UNIT
    side = max(1, min(MOST_SIDE, int(MOST_PIXELS**0.5) // tile, int(len(split.images) ** 0.5)))
    images = split.images[np.linspace(0, len(split.images) - 1, side * side).round().astype(int)]
    singles = images[np.linspace(0, len(images) - 1, min(len(images), FILE_IMAGES)).round().astype(int)]
    mosaic = to_mosaic(images, tile)
    found: dict[str, Any] = {}
    for codec, qualities in QUALITIES.items():
        rows = {"mosaic": [], "files": []}
        for quality in qualities:
            size_of, decoded = through(mosaic, codec, quality)
            rows["mosaic"].append(_point(quality, size_of, images, from_mosaic(decoded, tile, size)))
            files = [through(image, codec, quality) for image in singles]
            rows["files"].append(_point(quality, sum(f[0] for f in files), singles, np.stack([f[1] for f in files])))
        found[codec] = rows
    return {
        "data": split.digest[:12],
        "image_size": size,
        "images": len(images),
        "test_images": len(split.images),
        "file_images": len(singles),
        "mosaic": {"rows": side, "columns": side, "tile": tile},
        "versions": {
            "pillow": Image.__version__,
            "libjpeg": f"turbo {turbo}" if (turbo := features.version("libjpeg_turbo")) else features.version("jpg"),
            "libwebp": features.version("webp"),
        },
        "settings": SETTINGS,
        "codecs": found,
    }


def to_mosaic(images: np.ndarray, tile: int) -> np.ndarray:
    """(n * n, S, S, 3) to one picture (n * tile, n * tile, 3); last rows and columns are repeated up to ``tile``."""
    side, size = round(len(images) ** 0.5), images.shape[1]
    padded = np.pad(images, ((0, 0), (0, tile - size), (0, tile - size), (0, 0)), "edge")
    return padded.reshape(side, side, tile, tile, 3).swapaxes(1, 2).reshape(side * tile, side * tile, 3)


def from_mosaic(picture: np.ndarray, tile: int, size: int) -> np.ndarray:
    """The images of ``to_mosaic`` again."""
    side = len(picture) // tile
    tiles = picture.reshape(side, tile, side, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    return tiles[:, :size, :size]


def through(pixels: np.ndarray, codec: str, quality: int) -> tuple[int, np.ndarray]:
    """Bytes of a file of (H, W, 3) uint8, and what it holds."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, codec, quality=quality, **OPTIONS[codec])
    return file.tell(), np.asarray(Image.open(file).convert("RGB"))


def _point(quality: int, size: int, images: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    means = Means()
    for part in torch.arange(len(images)).split(256):
        x, y = (torch.from_numpy(kind[part.numpy()]).permute(0, 3, 1, 2) / 127.5 - 1 for kind in (images, decoded))
        means.add(distortion(x, y))
    pixels = images[..., 0].size
    return {"quality": quality, "bpp": 8 * size / pixels} | {key: means.get(key) for key in MEASURES}
