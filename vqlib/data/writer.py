"""From a source to the prepared array: all of it or none, resumable at every moment, checked by digests.

Order of writing: lock, list the source, allocate, chunks and their journal, rename, labels, manifest last. A folder
without a manifest is unfinished whatever else lies there.
"""

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vqlib.data.checks import damaged_chunks, problems
from vqlib.data.chunks import Job, Written, write_chunks
from vqlib.data.images import versions
from vqlib.data.journal import Journal
from vqlib.data.progress import Progress, Say
from vqlib.data.reader import CHUNK, FORMAT, SPLITS, labels_digest, read_manifest, seal
from vqlib.data.sources import Item, Source, resolve
from vqlib.errors import DataError
from vqlib.files import digest_of, exclusive, json_bytes, sync_directory, write_atomically
from vqlib.params import ROOT, Data

SMALL = 8 * CHUNK  # images: up to here, starting worker processes costs more than it saves


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
        DataError: the source is missing or damaged; the folder holds data made with other settings; the disk is full.
            What is done so far is kept, and starting again goes on from there.
    """
    folder = Path(folder)
    with _in_one_line(folder), exclusive(folder, "preparing data"):
        source = resolve(data, root)
        header = _header(data, source)
        if (folder / "manifest.json").exists():
            manifest = read_manifest(folder)
            _refuse_another(folder, manifest, header)
            if found := problems(folder, progress):
                raise DataError(f"{found[0]} ({len(found)} such); delete {folder / 'manifest.json'} and prepare again, "
                                "which makes anew only what is damaged")  # fmt: skip
            return manifest
        with contextlib.closing(Journal(folder / "journal.jsonl", header)) as journal:
            _refuse_another(folder, journal.header, header)
            _preflight(folder, source, data, progress)
            plan = _write(folder, data, source, journal, workers, progress)
            return _publish(folder, header, source, plan, journal)


def _header(data: Data, source: Source) -> dict:
    """All that determines the result."""
    items = [(split, item.wnid, item.name, item.identity) for split in SPLITS for item in source.items[split]]
    return {
        "format": FORMAT,
        **data.model_dump(include={"source", "image_size", "resize", "limit", "validation_every"}),
        **versions(),
        "items": digest_of("".join("\0".join(item) + "\n" for item in items).encode()),
    }


def _refuse_another(folder: Path, found: dict, asked: dict) -> None:
    different = [key for key in asked if found.get(key) != asked[key]]
    if different:
        listed = "; ".join(f"{key} {found.get(key)}, asked for is {asked[key]}" for key in different)
        raise DataError(f"{folder} holds prepared data of another {different[0].replace('_', ' ')} ({listed}): "
                        "go back to that, or delete the folder and prepare again")  # fmt: skip


def _preflight(folder: Path, source: Source, data: Data, progress: Say | None) -> None:
    images = sum(len(source.items[split]) for split in SPLITS)
    needed = images * data.image_size**2 * 3
    there = sum(file.stat().st_blocks * 512 for file in folder.glob("*.u8*"))
    free = shutil.disk_usage(folder).free
    if needed > there + free:
        raise OSError(errno.ENOSPC, f"{needed - there:,} more bytes are needed, {free:,} are free")
    if progress:
        progress(f"{data.source} at {data.image_size} px: {images:,} images, {needed / 1e6:,.0f} MB in {folder} "
                 f"({free / 1e6:,.0f} MB are free)")  # fmt: skip


def _write(
    folder: Path, data: Data, source: Source, journal: Journal, workers: int | None, progress: Say | None
) -> dict[str, list[Item]]:
    """Write what the journal lacks and return the items per split, without the bad ones.

    A bad image moves all after it, so the chunks from there on are then made again.
    """
    trusted = False
    while True:
        kept = {
            split: [
                item for item in source.items[split] if f"{item.wnid}/{item.name}" not in journal.dropped.get(split, {})
            ]
            for split in SPLITS
        }
        for split in SPLITS:
            if not kept[split]:
                reason = next(iter(journal.dropped[split].values()))
                raise DataError(
                    f"none of the {len(source.items[split]):,} {split} images is readable (first: {reason})"
                )
            _allocate(folder, split, len(kept[split]) * data.image_size**2 * 3)
        if not trusted:
            _forget_damaged(folder, data.image_size, journal)
            trusted = True
        pending = [job for job in _jobs(folder, data, source, kept) if not journal.has(job)]
        if not pending:
            return kept
        bar = Progress("prepared", sum(len(job.items) for job in pending), progress)

        def finished(job: Job, written: Written, bar: Progress = bar) -> None:
            journal.note(job, written)
            bar.add(len(job.items))

        write_chunks(pending, _processes(workers, bar.total), finished)


def _processes(workers: int | None, images: int) -> int:
    if workers is None:
        workers = 1 if images <= SMALL else len(os.sched_getaffinity(0))
    return max(1, min(workers, -(-images // CHUNK)))


def _jobs(folder: Path, data: Data, source: Source, kept: dict[str, list[Item]]) -> Iterator[Job]:
    for split in SPLITS:
        for start in range(0, len(kept[split]), CHUNK):
            offset = start * data.image_size**2 * 3
            yield Job(split, start // CHUNK, str(_part(folder, split)), offset, data.image_size, data.resize,
                      kept[split][start : start + CHUNK], source.read)  # fmt: skip


def _part(folder: Path, split: str) -> Path:
    return folder / f"{split}.u8.part"


def _allocate(folder: Path, split: str, size: int) -> None:
    """Give the unfinished file its size, every block of it, so that a full disk shows now and not as SIGBUS later."""
    part, finished = _part(folder, split), folder / f"{split}.u8"
    if finished.exists() and not part.exists():
        os.replace(finished, part)  # renamed, but the manifest was never written
    handle = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.ftruncate(handle, size)
        os.posix_fallocate(handle, 0, size)
    finally:
        os.close(handle)


def _forget_damaged(folder: Path, size: int, journal: Journal) -> None:
    """Check the chunks that the journal claims, and let go of those that the file does not hold."""
    for split in SPLITS:
        claimed = {number: line["sha256"] for (of, number), line in journal.chunks.items() if of == split}
        for number in damaged_chunks(_part(folder, split), size, claimed):
            del journal.chunks[split, number]


def _publish(folder: Path, header: dict, source: Source, kept: dict[str, list[Item]], journal: Journal) -> dict:
    described = {}
    for split in SPLITS:
        with open(_part(folder, split), "rb+") as file:
            os.fsync(file.fileno())
        os.replace(_part(folder, split), folder / f"{split}.u8")
        labels = np.array([source.classes.index(item.wnid) for item in kept[split]], dtype=np.int64)
        write_atomically(folder / f"{split}.labels.npy", _npy(labels))
        described[split] = _describe(split, kept[split], labels, journal)
    sync_directory(folder)
    dropped = {split: dict(sorted(images.items())) for split, images in sorted(journal.dropped.items())}
    content = {**header, "classes": source.classes, "splits": described, "dropped": dropped}
    write_atomically(folder / "manifest.json", seal(json_bytes(content).removesuffix(b"\n}\n")))
    return read_manifest(folder)


def _describe(split: str, items: list[Item], labels: np.ndarray, journal: Journal) -> dict:
    lines = [journal.chunks[split, number] for number in range(-(-len(items) // CHUNK))]
    chunks = [line["sha256"] for line in lines]
    kinds = sorted({kind for line in lines for kind in line["odd"]})
    return {
        "count": len(items),
        "digest": digest_of("".join(chunks).encode()),
        "labels": labels_digest(labels),
        "odd": {kind: [position for line in lines for position in line["odd"].get(kind, [])] for kind in kinds},
        "chunks": chunks,
        "names": [item.name for item in items],
    }


def _npy(labels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, labels)
    return buffer.getvalue()


@contextlib.contextmanager
def _in_one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(f"{folder}: the disk is full or the file too large ({error.strerror}); what is done is kept: "
                            "free space and start again") from None  # fmt: skip
        raise DataError(f"{error.filename or folder}: {error.strerror or error}") from None
