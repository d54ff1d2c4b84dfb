"""From a source to the prepared array: all of it or none, resumable at every moment, checked by digests.

Order: lock, list the source, refuse what is of another kind, disk needed, digests of large files of the source, then
what ``assembly`` does.
"""

import contextlib
import errno
import hashlib
import shutil
import time
from pathlib import Path

from vqlib.data.assembly import Assembly, is_quick, processes
from vqlib.data.checks import problems
from vqlib.data.images import BadImageError, quick_adm, to_array, versions
from vqlib.data.journal import Journal
from vqlib.data.reader import FORMAT, SPLITS, read_manifest
from vqlib.data.sources import Source, SourceGoneError, resolve
from vqlib.errors import DataError
from vqlib.files import exclusive, in_one_line
from vqlib.params import ROOT, Data
from vqlib.progress import Progress, Say


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
        if (folder / "manifest.json").exists():
            return _check(folder, data, root, progress)
        source = resolve(data, root, progress)
        header = _header(data, source)
        with contextlib.closing(Journal(folder / "journal.jsonl", header)) as journal:
            _refuse_another(folder, journal.header, header)
            _preflight(folder, source, data, workers, progress)
            source.check()
            if source.lists != journal.lists:
                journal.note_lists(source.lists, were_read=False)
            assembly = Assembly(folder, data.image_size, data.resize, source, journal)
            assembly.recover(progress)
            assembly.write(workers, progress)
            assembly.publish(header, progress)
    return read_manifest(folder)


def _header(data: Data, source: Source | None) -> dict:
    """All that determines the result; what a source that is gone would add is left out."""
    fields = {"source", "image_size", "resize", "limit", "validation_every"}
    header = {"format": FORMAT, **data.model_dump(include=fields), **versions()}
    if source is None:
        return header
    items = hashlib.sha256()
    for split in SPLITS:
        for item in source.items[split]:
            items.update(f"{split}\0{item.key}\0{item.identity}\n".encode())
    return {**header, "items": items.hexdigest()}


def _check(folder: Path, data: Data, root: Path, progress: Say | None) -> dict:
    """Prepared data that are there already: of the kind asked for, and whole. Their source may be gone."""
    manifest = read_manifest(folder)
    try:
        source = resolve(data.model_copy(update={"download": False}), root, progress)
    except SourceGoneError as error:
        source = None
        if progress:
            progress(f"the source is gone, so the prepared images are checked against their manifest alone ({error})")
    header = _header(data, source)
    _refuse_another(folder, manifest, header)
    if source:
        source.check()
        if source.lists:
            with contextlib.closing(Journal(folder / "journal.jsonl", header)) as journal:
                if source.lists != journal.lists:
                    _check_lists(folder, source, manifest, progress)
                    journal.note_lists(source.lists, were_read=True)
    if found := problems(folder, progress):
        raise DataError(
            f"{found[0]} ({len(found)} such); delete {folder / 'manifest.json'} and prepare again, "
            "which makes anew only what is damaged"
        )
    return manifest


def _check_lists(folder: Path, source: Source, manifest: dict, progress: Say | None) -> None:
    """Read the source of images that were prepared before there was this list of digests."""
    items = [(split, item) for split in SPLITS for item in source.items[split]]
    bad, bar = [], Progress("checked against the list of digests", len(items), "images", to=progress)
    for split, item in items:
        try:
            source.read(item.place)
        except BadImageError:
            if item.key not in manifest["dropped"][split]:
                bad.append(item.key)
        bar.add(1)
    bar.close()
    if bad:
        raise DataError(
            f"{folder}: {len(bad):,} prepared images do not have the digests listed for them since, the first is "
            f"{bad[0]}: get them or the list again, or delete {folder / 'manifest.json'} and prepare without them"
        )


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
        number = processes(workers, images)
        seconds = images * _seconds_per_image(source, data, is_quick(images, number)) / number
        progress(
            f"{data.source} at {data.image_size} px: {images:,} images, {needed / 1e6:,.0f} MB in {folder} "
            f"({free / 1e6:,.0f} MB are free), about {seconds / 60:,.0f} min to decode"
        )


def _seconds_per_image(source: Source, data: Data, quick: bool, tried: int = 16) -> float:
    """Reading and decoding, measured on images of the whole training split, or on those that are read together."""
    items = source.items["train"]
    sample = items[:: max(1, len(items) // tried)][:tried]
    if source.group:
        first = min(source.group(item.place) for item in items)
        sample = [item for item in items if source.group(item.place) == first]
    if quick and data.resize == "adm":
        quick_adm()  # compiles, which is done once
    start = time.monotonic()
    for item in sample:
        with contextlib.suppress(BadImageError):
            to_array(source.read(item.place), item.name, data.image_size, data.resize, quick)
    return (time.monotonic() - start) / len(sample)
