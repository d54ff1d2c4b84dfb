"""CIFAR-10, the paper's real data: 60,000 images of 32 x 32 in six pickles.

A pickle can run any code, so one is read only if its md5 is that of the original, and then by a reader that knows no
names but those of numpy's arrays.
"""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vqlib.data.sources import Item, Source, SourceGoneError, digests, place_of
from vqlib.errors import DataError
from vqlib.params import Data
from vqlib.progress import Say

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
SIZE = 32  # pixels
MAX_BYTES = 2**26  # of a batch, which has 31 MB


def find(data: Data, root: Path, say: Say) -> Source:
    """Read ``cifar-10-python.tar.gz`` or its folder in the folder at ``data.path``; it may be fetched there."""
    folder = place_of(data, root)
    if not (folder / FOLDER).is_dir() and not (folder / ARCHIVE).exists():
        if not data.download:
            raise SourceGoneError(
                f"{folder}: neither {ARCHIVE} nor {FOLDER} is there; put one there, or set data.download to true to "
                "let torchvision download 170 MB from https://www.cs.toronto.edu/~kriz"
            )
        _download(folder, say)
    batches = _from_folder(folder / FOLDER) if (folder / FOLDER).is_dir() else _from_archive(folder / ARCHIVE, say)
    items: dict[str, list[Item]] = {"train": [], "test": []}
    for name in MD5:
        content = batches.pop(name)
        if hashlib.md5(content).hexdigest() != MD5[name]:
            raise DataError(f"{folder}: the md5 of {name} is not that of the original, so it is not read; get it again")
        items["test" if name == "test_batch" else "train"] += _items(name, content, folder)
    ordered = {split: sorted(of_split, key=lambda item: item.key) for split, of_split in items.items()}
    return Source(CLASSES, ordered, to_picture, whole=True)


def to_picture(pixels: bytes) -> Image.Image:
    """An image is its own place: 3,072 bytes, all of the red before all of the green."""
    return Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(3, SIZE, SIZE).transpose(1, 2, 0).copy())


def _items(name: str, content: bytes, folder: Path) -> list[Item]:
    try:
        batch = ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = batch[b"data"], batch[b"labels"]
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * SIZE**2):
            raise ValueError(f"{pixels.dtype} {pixels.shape} for {len(labels)} labels")
    except Exception as error:  # unpickling raises nearly anything
        raise DataError(f"{folder}: {name} is no batch of CIFAR-10 ({type(error).__name__}: {error})") from None
    return [
        Item(CLASSES[label], f"{name}_{row:05d}.png", MD5[name], image.tobytes())
        for row, (label, image) in enumerate(zip(labels, pixels, strict=True))
    ]


class ArrayUnpickler(pickle.Unpickler):
    """Knows arrays and the builtin types that need no name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np._core.multiarray._reconstruct
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into a batch of images")


def _from_folder(folder: Path) -> dict[str, bytes]:
    if missing := [name for name in MD5 if not (folder / name).is_file()]:
        raise DataError(f"{folder}: {len(MD5) - len(missing)} of {len(MD5)} batches are there; {missing[0]} is missing")
    found = {}
    for name in MD5:
        with open(folder / name, "rb") as file:
            found[name] = file.read(MAX_BYTES)
    return found


def _from_archive(path: Path, say: Say) -> dict[str, bytes]:
    """Nothing is decompressed before the archive is known to be the original, so it needs no more suspicion."""
    found = digests.digest_of_file(path, "md5", say)
    if found != ARCHIVE_MD5:
        raise DataError(f"{path}: its md5 is {found}, that of the original is {ARCHIVE_MD5}; get it again")
    with tarfile.open(path, "r:gz") as archive:
        return {name: archive.extractfile(f"{FOLDER}/{name}").read() for name in MD5}


def _download(folder: Path, say: Say) -> None:
    from torchvision.datasets import CIFAR10  # imported here, since torch takes seconds

    say(f"torchvision downloads CIFAR-10 (170 MB) into {folder} and extracts it there")
    try:
        CIFAR10(folder, download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(f"{folder}: the download failed ({str(error).splitlines()[0]}); start again, "
                        f"or get {ARCHIVE} by other means and put it there") from None  # fmt: skip
