"""Every byte of a prepared folder against its manifest."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
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
        parts = in_chunks(described["count"])
        actual = digests(path, manifest["image_size"], parts)
        for number, (part, digest, expected) in enumerate(zip(parts, actual, described["chunks"], strict=True)):
            bar.add(len(part))
            if digest != expected:
                found.append(f"{path} is damaged in chunk {number} (images {part[0]} to {part[-1]})")
    bar.close()
    return found


def digests(path: Path, image_size: int, parts: list[Sequence[int]]) -> Iterator[str]:
    """sha256 over the images at the positions of each part, in their order; read in parallel."""
    with ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(lambda part: _digest(path, image_size**2 * 3, part), parts)


def in_chunks(images: int) -> list[range]:
    """The positions of every chunk."""
    return [range(start, min(start + CHUNK, images)) for start in range(0, images, CHUNK)]


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


def _digest(path: Path, length: int, positions: Sequence[int]) -> str:
    """``length``: bytes of an image. Images behind one another are read together."""
    total = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for first, last in _runs(positions):
            file.seek(first * length)
            left = (last + 1 - first) * length
            while left and (block := file.read(min(BLOCK, left))):
                total.update(block)
                left -= len(block)
    return total.hexdigest()


def _runs(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of the positions that follow one another without a gap."""
    if isinstance(positions, range):
        yield positions[0], positions[-1]
        return
    for _, run in groupby(enumerate(positions), key=lambda pair: pair[1] - pair[0]):
        of_run = [position for _, position in run]
        yield of_run[0], of_run[-1]
