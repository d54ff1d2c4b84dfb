"""Putting splits together: allocate, write and journal their parts, then rename the arrays and write the manifest last.

A folder without a manifest is unfinished, whatever else lies in it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vqlib.data.checks import digests, in_chunks, npy_bytes
from vqlib.data.chunks import Job, Written, write_chunks
from vqlib.data.images import BadImageError, to_array
from vqlib.data.journal import Journal
from vqlib.data.reader import CHUNK, SPLITS, labels_digest, seal
from vqlib.data.sources import Item, Source
from vqlib.data.system import allocate, cores
from vqlib.errors import DataError
from vqlib.files import digest_of, json_bytes, sync_directory, write_atomically
from vqlib.progress import Progress, Say

SMALL = 8 * CHUNK  # images: up to here, starting worker processes costs more than it saves
MANY = 4 * CHUNK  # images of a process: from here on, compiling (6 s, later 2 s) costs less than it saves


@dataclass(frozen=True)
class Assembly:
    """A preparation that is under way in ``folder``, locked by this process."""

    folder: Path
    image_size: int
    resize: str
    source: Source
    journal: Journal

    def recover(self, progress: Say | None) -> None:
        """Let go of the journalled jobs whose images the files do not hold, and of drops of images that can be read."""
        for split, dropped in self.journal.dropped.items():
            for item in self.source.items[split]:
                if item.key in dropped and self._can_be_read(item):
                    del dropped[item.key]
        for split in SPLITS:
            part, finished = self._part(split), self.folder / f"{split}.u8"
            if finished.exists() and not part.exists():
                os.replace(finished, part)  # renamed, but the manifest was not written
            part.touch()
            claimed = [job for job in self._jobs(split) if self.journal.has(job)]
            expected = [self.journal.done[split, job.number]["sha256"] for job in claimed]
            places = [job.positions for job in claimed]
            bar = Progress(f"checked what is done of {split}", sum(map(len, places)), "images", to=progress)
            for job, actual, digest in zip(claimed, digests(part, self.image_size, places), expected, strict=True):
                if actual != digest:
                    del self.journal.done[split, job.number]
                bar.add(len(job.items))
            bar.close()

    def write(self, workers: int | None, progress: Say | None) -> None:
        """Write what the journal lacks.

        A bad image is dropped and moves all after it, so a second round does what comes from there on again.
        """
        while True:
            for split in SPLITS:
                self._allocate(split)
            pending = [job for split in SPLITS for job in self._jobs(split) if not self.journal.has(job)]
            if not pending:
                return
            bar = Progress("prepared", sum(len(job.items) for job in pending), "images", to=progress)

            def finished(job: Job, written: Written, bar: Progress = bar) -> None:
                if written.dropped and self.source.whole:
                    name, reason = next(iter(written.dropped.items()))
                    raise DataError(f"{name} cannot be read ({reason}), and the source must be whole: get it again, "
                                    "or set data.partial to true to go on without such images")  # fmt: skip
                self.journal.note(job, written)
                bar.add(len(job.items))

            number = processes(workers, bar.total)
            jobs = [job._replace(quick=is_quick(bar.total, number)) for job in pending]
            try:
                write_chunks(jobs, number, finished)
            finally:
                bar.close()

    def publish(self, header: dict, progress: Say | None) -> None:
        """Give the arrays their names, and last of all write the manifest."""
        described, label = {}, {wnid: number for number, wnid in enumerate(self.source.classes)}
        for split in SPLITS:
            with open(self._part(split), "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self._part(split), self.folder / f"{split}.u8")
            labels = np.array([label[item.wnid] for item in self._kept(split)], dtype=np.int64)
            write_atomically(self.folder / f"{split}.labels.npy", npy_bytes(labels))
            described[split] = self._describe(split, labels, progress)
        self._compare_odd([described[split] for split in ("train", "validation")])
        sync_directory(self.folder)
        dropped = {split: dict(sorted(self.journal.dropped.get(split, {}).items())) for split in SPLITS}
        content = {**header, "classes": self.source.classes, "splits": described, "dropped": dropped}
        write_atomically(self.folder / "manifest.json", seal(json_bytes(content).removesuffix(b"\n}\n")))

    def _compare_odd(self, described: list[dict]) -> None:
        """Of a whole data set it is known which files are odd, and converting or encoding them again shows in that."""
        for kind, known in self.source.odd.items():
            expected = known & {name for split in described for name in split["names"]}
            found = {split["names"][position] for split in described for position in split["odd"].get(kind, [])}
            if found != expected:
                name = min(found ^ expected)
                raise DataError(
                    f"{name} is {'' if name in found else 'not '}{kind}, unlike in the original ({len(found)} such "
                    f"files, {len(expected)} were expected): files were converted or exchanged; get the source again, "
                    "or set data.partial to true to go on with these"
                )

    def _part(self, split: str) -> Path:
        return self.folder / f"{split}.u8.part"

    def _can_be_read(self, item: Item) -> bool:
        try:
            to_array(self.source.read(item.place), item.name, self.image_size, self.resize)
        except BadImageError:
            return False
        return True

    def _kept(self, split: str) -> list[Item]:
        items, dropped = self.source.items[split], self.journal.dropped.get(split)
        return [item for item in items if item.key not in dropped] if dropped else items

    def _allocate(self, split: str) -> None:
        """Give the unfinished file every block of its size, so that a full disk shows now."""
        count = len(self._kept(split))
        if count == 0:
            reason = next(iter(self.journal.dropped[split].values()))
            raise DataError(f"no {split} image of {len(self.source.items[split]):,} can be read (the first: {reason})")
        handle = os.open(self._part(split), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            allocate(handle, count * self.image_size**2 * 3)
        finally:
            os.close(handle)

    def _jobs(self, split: str) -> Iterator[Job]:
        """The split in chunks; or, where images have to be read in groups, in jobs of whole groups, each read once."""
        kept, group = self._kept(split), self.source.group
        parts = in_groups([group(item.place) for item in kept]) if group else in_chunks(len(kept))
        for number, positions in enumerate(parts):
            items = [kept[position] for position in positions]
            yield Job(
                split, number, self._part(split), self.image_size, self.resize, items, positions, self.source.read
            )

    def _describe(self, split: str, labels: np.ndarray, progress: Say | None) -> dict:
        jobs = list(self._jobs(split))
        lines = [self.journal.done[split, job.number] for job in jobs]
        if self.source.group is None:
            chunks = [line["sha256"] for line in lines]
        else:
            parts, chunks = in_chunks(len(labels)), []
            bar = Progress(f"digests of {split}", len(labels), "images", to=progress)
            for part, digest in zip(parts, digests(self.folder / f"{split}.u8", self.image_size, parts), strict=True):
                chunks.append(digest)
                bar.add(len(part))
            bar.close()
        kinds = sorted({kind for line in lines for kind in line["odd"]})
        return {
            "count": len(labels),
            "digest": digest_of("".join(chunks).encode()),
            "labels": labels_digest(labels),
            "odd": {
                kind: sorted(position for line in lines for position in line["odd"].get(kind, [])) for kind in kinds
            },
            "chunks": chunks,
            "names": [item.name for item in self._kept(split)],
        }


def in_groups(groups: list[Any]) -> list[list[int]]:
    """Positions in the order of their groups, in parts of whole groups that have ``CHUNK`` images or a few more."""
    parts, order = [[]], sorted(range(len(groups)), key=groups.__getitem__)
    for _, of_group in groupby(order, key=groups.__getitem__):
        if len(parts[-1]) >= CHUNK:
            parts.append([])
        parts[-1] += of_group
    return parts


def is_quick(images: int, number: int) -> bool:
    """Whether that many images pay for compiling in each of ``number`` processes."""
    return images >= MANY * number


def processes(workers: int | None, images: int) -> int:
    """How many processes decode that many images: as asked, or as there are cores; no more than chunks."""
    if workers is None:
        workers = 1 if images <= SMALL else cores()
    return max(1, min(workers, -(-images // CHUNK)))
