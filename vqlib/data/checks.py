"""Every byte of a prepared folder against its manifest."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vqlib.data.progress import Progress, Say
from vqlib.data.reader import CHUNK, SPLITS, map_images, read_labels, read_manifest
from vqlib.errors import DataError

BLOCK = 2**22  # bytes read at once


def verify(folder: Path, progress: Say | None = None) -> dict:
    """Check all images and labels and return the manifest.

    Raises:
        DataError: something is missing or damaged; the message has one line for each damaged thing.
    """
    if found := problems(folder, progress):
        raise DataError("\n".join(found))
    return read_manifest(folder)


def problems(folder: Path, progress: Say | None = None) -> list[str]:
    """One line for everything that differs from the manifest; a damaged manifest is the only one then."""
    folder, found = Path(folder), []
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        return [str(error)]
    bar = Progress("verified", sum(manifest["splits"][split]["count"] for split in SPLITS), progress)
    for split in SPLITS:
        described = manifest["splits"][split]
        try:
            read_labels(folder, split, manifest)
            map_images(folder, split, manifest)
        except DataError as error:
            found.append(str(error))
            continue
        path, size = folder / f"{split}.u8", manifest["image_size"]
        for number in damaged_chunks(path, size, dict(enumerate(described["chunks"])), bar):
            last = min((number + 1) * CHUNK, described["count"]) - 1
            found.append(f"{path} is damaged in chunk {number} (images {number * CHUNK} to {last})")
    return found


def damaged_chunks(path: Path, size: int, digests: dict[int, str], bar: Progress | None = None) -> Iterator[int]:
    """Numbers of the chunks whose bytes in the file do not have the sha256 given; ``size`` is that of an image."""

    def is_damaged(number: int) -> bool:
        return _digest(path, number * CHUNK * size * size * 3, CHUNK * size * size * 3) != digests[number]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for number, damaged in zip(sorted(digests), pool.map(is_damaged, sorted(digests)), strict=True):
            if bar:
                bar.add(min(CHUNK, bar.total - bar.done))
            if damaged:
                yield number


def _digest(path: Path, offset: int, length: int) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(offset)
        while length and (block := file.read(min(BLOCK, length))):
            total.update(block)
            length -= len(block)
    return total.hexdigest()
