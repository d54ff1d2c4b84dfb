"""Putting chunks together: allocate, write and journal them, then rename the arrays and write the manifest last.

A folder without a manifest is unfinished, whatever else lies in it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqlib.data.checks import check_chunks, npy_bytes
from vqlib.data.chunks import Job, Written, write_chunks
from vqlib.data.journal import Journal
from vqlib.data.reader import CHUNK, SPLITS, labels_digest, seal
from vqlib.data.sources import Item, Source
from vqlib.data.system import allocate, cores
from vqlib.errors import DataError
from vqlib.files import digest_of, json_bytes, sync_directory, write_atomically
from vqlib.progress import Progress, Say

SMALL = 8 * CHUNK  # images: up to here, starting worker processes costs more than it saves


@dataclass(frozen=True)
class Assembly:
    """A preparation that is under way in ``folder``, locked by this process."""

    folder: Path
    image_size: int
    resize: str
    source: Source
    journal: Journal

    def recover(self) -> None:
        """Let go of the journalled chunks that the files do not hold."""
        for split in SPLITS:
            part, finished = self._part(split), self.folder / f"{split}.u8"
            if finished.exists() and not part.exists():
                os.replace(finished, part)  # renamed, but the manifest was not written
            claimed = {number: line["sha256"] for (of, number), line in self.journal.chunks.items() if of == split}
            part.touch()
            for number, good in check_chunks(part, self.image_size, claimed):
                if not good:
                    del self.journal.chunks[split, number]

    def write(self, workers: int | None, progress: Say | None) -> None:
        """Write what the journal lacks.

        A bad image is dropped and moves all after it, so a second round makes the chunks from there on again.
        """
        while True:
            for split in SPLITS:
                self._allocate(split)
            pending = [job for job in self._jobs() if not self.journal.has(job)]
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

            try:
                write_chunks(pending, processes(workers, bar.total), finished)
            finally:
                bar.close()

    def publish(self, header: dict) -> None:
        """Give the arrays their names, and last of all write the manifest."""
        described, label = {}, {wnid: number for number, wnid in enumerate(self.source.classes)}
        for split in SPLITS:
            with open(self._part(split), "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self._part(split), self.folder / f"{split}.u8")
            labels = np.array([label[item.wnid] for item in self._kept(split)], dtype=np.int64)
            write_atomically(self.folder / f"{split}.labels.npy", npy_bytes(labels))
            described[split] = self._describe(split, labels)
        sync_directory(self.folder)
        dropped = {split: dict(sorted(self.journal.dropped.get(split, {}).items())) for split in SPLITS}
        content = {**header, "classes": self.source.classes, "splits": described, "dropped": dropped}
        write_atomically(self.folder / "manifest.json", seal(json_bytes(content).removesuffix(b"\n}\n")))

    def _part(self, split: str) -> Path:
        return self.folder / f"{split}.u8.part"

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

    def _jobs(self) -> Iterator[Job]:
        for split in SPLITS:
            kept = self._kept(split)
            for number in range(-(-len(kept) // CHUNK)):
                items = kept[number * CHUNK : (number + 1) * CHUNK]
                yield Job(split, number, self._part(split), self.image_size, self.resize, items, self.source.read)

    def _describe(self, split: str, labels: np.ndarray) -> dict:
        lines = [self.journal.chunks[split, number] for number in range(-(-len(labels) // CHUNK))]
        chunks = [line["sha256"] for line in lines]
        kinds = sorted({kind for line in lines for kind in line["odd"]})
        return {
            "count": len(labels),
            "digest": digest_of("".join(chunks).encode()),
            "labels": labels_digest(labels),
            "odd": {kind: [position for line in lines for position in line["odd"].get(kind, [])] for kind in kinds},
            "chunks": chunks,
            "names": [item.name for item in self._kept(split)],
        }


def processes(workers: int | None, images: int) -> int:
    """How many processes decode that many images: as asked, or as there are cores; no more than chunks."""
    if workers is None:
        workers = 1 if images <= SMALL else cores()
    return max(1, min(workers, -(-images // CHUNK)))
