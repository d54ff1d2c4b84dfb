"""What of an unfinished preparation is done already: JSON lines, each on disk before the next chunk counts on it."""

import json
import os
from pathlib import Path
from typing import Any

from vqlib.data.chunks import Job, Written
from vqlib.files import digest_of


class Journal:
    """Chunks and dropped images noted so far. The first line says what is being made.

    A last line that a crash has torn is cut off; a line that is damaged otherwise counts as never written.
    """

    def __init__(self, path: Path, header: dict):
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = [line for line in map(_parse, whole.splitlines()) if line is not None]
        self.header = lines[0]["header"] if lines and "header" in lines[0] else None
        self.chunks: dict[tuple[str, int], dict] = {}
        self.dropped: dict[str, dict[str, str]] = {}
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self.handle, len(whole) if self.header else 0)
        if self.header is None:
            self.header = header
            self._append({"header": header})
            return
        for line in lines[1:]:
            self._take(line)

    def note(self, job: Job, written: Written) -> None:
        """Take the outcome of a job."""
        line: dict[str, Any] = {"split": job.split}
        if written.dropped:
            line["dropped"] = written.dropped
        else:
            line |= {"chunk": job.number, "items": items_digest(job), "sha256": written.sha256, "odd": written.odd}
        self._append(line)
        self._take(line)

    def has(self, job: Job) -> bool:
        """Whether the chunk is written, with just these images."""
        return self.chunks.get((job.split, job.number), {}).get("items") == items_digest(job)

    def close(self) -> None:
        os.close(self.handle)

    def _take(self, line: dict) -> None:
        if "dropped" in line:
            self.dropped.setdefault(line["split"], {}).update(line["dropped"])
        else:
            self.chunks[line["split"], line["chunk"]] = line

    def _append(self, line: dict) -> None:
        content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        while content:
            content = content[os.write(self.handle, content) :]
        os.fdatasync(self.handle)


def items_digest(job: Job) -> str:
    """Which images a chunk holds."""
    return digest_of("".join(f"{item.wnid}/{item.name}\n" for item in job.items).encode())


def _parse(line: bytes) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
