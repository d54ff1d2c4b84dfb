"""Every byte of a prepared folder against its manifest."""

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vqlib.data.reader import CHUNK, SPLITS, map_images, read_labels, read_manifest
from vqlib.data.system import cores
from vqlib.errors import DataError
from vqlib.progress import Progress, Say

BLOCK = 2**22  # bytes read at once


def verify(folder: Path, progress: Say | None = None) -> dict:
    """Check all images and labels and return the manifest.

    Raises:
        DataError: something is missing or damaged; the message has one line for each such thing.
    """
    if found := problems(folder, progress):
        raise DataError("\n".join(found))
    return read_manifest(folder)


def problems(folder: Path, progress: Say | None = None) -> list[str]:
    """One line for everything that differs from the manifest; where that is damaged, nothing else can be checked."""
    folder, found = Path(folder), []
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        return [str(error)]
    bar = Progress("verified", sum(manifest["splits"][split]["count"] for split in SPLITS), "images", to=progress)
    for split in SPLITS:
        described = manifest["splits"][split]
        for check in (_check_labels, map_images):
            try:
                check(folder, split, manifest)
            except DataError as error:
                found.append(str(error))
        path = folder / f"{split}.u8"
        if not path.is_file():
            continue
        for number, good in check_chunks(path, manifest["image_size"], dict(enumerate(described["chunks"]))):
            first, last = number * CHUNK, min((number + 1) * CHUNK, described["count"]) - 1
            bar.add(last + 1 - first)
            if not good:
                found.append(f"{path} is damaged in chunk {number} (images {first} to {last})")
    bar.close()
    return found


def check_chunks(path: Path, image_size: int, digests: dict[int, str]) -> Iterator[tuple[int, bool]]:
    """For each numbered chunk, whether its bytes in the file have the sha256 given; read in parallel."""
    length = CHUNK * image_size * image_size * 3
    with ThreadPoolExecutor(cores()) as pool:
        found = pool.map(lambda number: _digest(path, number * length, length), digests)
        for (number, digest), actual in zip(digests.items(), found, strict=True):
            yield number, actual == digest


def _check_labels(folder: Path, split: str, manifest: dict) -> None:
    """The labels, and the header before them, in which a flipped bit may change nothing."""
    path = folder / f"{split}.labels.npy"
    if npy_bytes(read_labels(folder, split, manifest)) != path.read_bytes():
        raise DataError(f"{path} is damaged in its header; delete {folder / 'manifest.json'} and prepare again")


def npy_bytes(labels: np.ndarray) -> bytes:
    """The content of a labels file."""
    buffer = io.BytesIO()
    np.save(buffer, labels)
    return buffer.getvalue()


def _digest(path: Path, offset: int, length: int) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(offset)
        while length and (block := file.read(min(BLOCK, length))):
            total.update(block)
            length -= len(block)
    return total.hexdigest()
