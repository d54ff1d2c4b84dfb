"""From a source to the prepared array: all of it or none, resumable at every moment, checked by digests.

Order: lock, list the source, refuse what is of another kind, disk needed, then what ``assembly`` does.
"""

import contextlib
import errno
import hashlib
import shutil
import time
from pathlib import Path

from vqlib.data.assembly import Assembly, processes
from vqlib.data.checks import problems
from vqlib.data.images import BadImageError, to_array, versions
from vqlib.data.journal import Journal
from vqlib.data.reader import FORMAT, SPLITS, read_manifest
from vqlib.data.sources import Source, resolve
from vqlib.errors import DataError
from vqlib.files import exclusive, in_one_line
from vqlib.params import ROOT, Data
from vqlib.progress import Say


def prepare(
    data: Data, folder: Path, root: Path = ROOT, workers: int | None = None, progress: Say | None = None
) -> dict:
    """Make the prepared array of ``data`` in ``folder``, or check it if it is there, and return its manifest.

    Args:
        workers: processes that decode; None for as many as there are cores, or one for a small set. Whatever their
            number, the result is the same.
        progress: is called with one line of text at a time.

    Raises:
        BusyError: another process prepares this folder.
        DataError: the source is missing or damaged; the folder holds data made with other settings.
        StorageError: the disk is full or read-only. What is done is kept, and starting again goes on from there.
    """
    folder = Path(folder)
    with in_one_line(folder), exclusive(folder, "preparing data"):
        for left_by_a_crash in folder.glob(".*.tmp"):
            left_by_a_crash.unlink()
        source = resolve(data, root, progress)
        header = _header(data, source)
        if (folder / "manifest.json").exists():
            return _check(folder, header, progress)
        with contextlib.closing(Journal(folder / "journal.jsonl", header)) as journal:
            _refuse_another(folder, journal.header, header)
            _preflight(folder, source, data, workers, progress)
            assembly = Assembly(folder, data.image_size, data.resize, source, journal)
            assembly.recover()
            assembly.write(workers, progress)
            assembly.publish(header)
    return read_manifest(folder)


def _header(data: Data, source: Source) -> dict:
    """All that determines the result."""
    items = hashlib.sha256()
    for split in SPLITS:
        for item in source.items[split]:
            items.update(f"{split}\0{item.key}\0{item.identity}\n".encode())
    return {
        "format": FORMAT,
        **data.model_dump(include={"source", "image_size", "resize", "limit", "validation_every"}),
        **versions(),
        "items": items.hexdigest(),
    }


def _check(folder: Path, header: dict, progress: Say | None) -> dict:
    """Prepared data that are there already: of the kind asked for, and whole."""
    manifest = read_manifest(folder)
    _refuse_another(folder, manifest, header)
    if found := problems(folder, progress):
        raise DataError(
            f"{found[0]} ({len(found)} such); delete {folder / 'manifest.json'} and prepare again, "
            "which makes anew only what is damaged"
        )
    return manifest


def _refuse_another(folder: Path, found: dict, asked: dict) -> None:
    different = [key for key in asked if found.get(key) != asked[key]]
    if different == ["items"]:
        raise DataError(
            f"{folder} holds prepared data of a source with other files (names or sizes differ): "
            "delete the folder to prepare from what the source holds now"
        )
    if different:
        listed = "; ".join(f"{key} {found.get(key)}, asked for is {asked[key]}" for key in different if key != "items")
        raise DataError(
            f"{folder} holds prepared data of another {different[0].replace('_', ' ')} ({listed}): "
            "go back to that, or delete the folder and prepare again"
        )


def _preflight(folder: Path, source: Source, data: Data, workers: int | None, progress: Say | None) -> None:
    """Refuse a disk that is too small, and say what disk and time it will take."""
    images = sum(len(source.items[split]) for split in SPLITS)
    needed = images * data.image_size**2 * 3
    there = sum(file.stat().st_blocks * 512 for file in folder.glob("*.u8*"))
    free = shutil.disk_usage(folder).free
    if needed > there + free:
        raise OSError(errno.ENOSPC, f"{needed - there:,} more bytes are needed, {free:,} are free")
    if progress:
        seconds = images * _seconds_per_image(source, data) / processes(workers, images)
        progress(
            f"{data.source} at {data.image_size} px: {images:,} images, {needed / 1e6:,.0f} MB in {folder} "
            f"({free / 1e6:,.0f} MB are free), about {seconds / 60:,.0f} min to decode"
        )


def _seconds_per_image(source: Source, data: Data, tried: int = 16) -> float:
    """Reading and decoding, measured on images of the whole training split, or on those that are read together."""
    items = source.items["train"]
    sample = items[:: max(1, len(items) // tried)][:tried]
    if source.group:
        first = min(source.group(item.place) for item in items)
        sample = [item for item in items if source.group(item.place) == first]
    start = time.monotonic()
    for item in sample:
        with contextlib.suppress(BadImageError):
            to_array(source.read(item.place), item.name, data.image_size, data.resize)
    return (time.monotonic() - start) / len(sample)
