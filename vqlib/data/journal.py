"""What of an unfinished preparation is done already: one line per job, each on disk before the next is written."""

import json
import os
from pathlib import Path
from typing import Any

from vqlib.data.chunks import Job, Written
from vqlib.data.system import sync
from vqlib.files import digest_of


class Journal:
    """Jobs done and images dropped so far; ``header``, the first line, says what is being made.

    A line is the first half of its sha256, a space, and JSON. A line that does not fit its digest, torn by a crash or
    damaged since, counts as never written. A journal of something else that has no other line is begun anew.
    """

    def __init__(self, path: Path, header: dict):
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = [parsed for line in whole.splitlines() if (parsed := _parse(line))]
        resumed = bool(lines) and "header" in lines[0] and (len(lines) > 1 or lines[0]["header"] == header)
        self.header: dict = lines[0]["header"] if resumed else header
        self.done: dict[tuple[str, int], dict] = {}
        self.dropped: dict[str, dict[str, str]] = {}
        self.lists = ""  # as of the Source, when images were last read
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self._handle, len(whole) if resumed else 0)
        if resumed:
            for line in lines[1:]:
                self._take(line)
        else:
            self._append({"header": header})

    def note(self, job: Job, written: Written) -> None:
        """Write down the outcome of a job."""
        line: dict[str, Any] = {"split": job.split}
        if written.dropped:
            line["dropped"] = written.dropped
        else:
            line |= {"job": job.number, "items": items_digest(job), "sha256": written.sha256, "odd": written.odd}
        self._append(line)
        self._take(line)

    def note_lists(self, lists: str, were_read: bool) -> None:
        """Images were read, or from now on are, by this list of digests; by another one they were not checked."""
        line = {"lists": lists, "keep": were_read}
        self._append(line)
        self._take(line)

    def has(self, job: Job) -> bool:
        """Whether just these images are written, in these places."""
        return self.done.get((job.split, job.number), {}).get("items") == items_digest(job)

    def close(self) -> None:
        os.close(self._handle)

    def _take(self, line: dict) -> None:
        if "dropped" in line:
            self.dropped.setdefault(line["split"], {}).update(line["dropped"])
        elif "job" in line:
            self.done[line["split"], line["job"]] = line
        elif "lists" in line:
            self.lists = line["lists"]
            if not line["keep"]:
                self.done.clear()

    def _append(self, line: dict) -> None:
        text = json.dumps(line, ensure_ascii=False)
        content = f"{digest_of(text.encode())[:32]} {text}\n".encode()
        while content:
            content = content[os.write(self._handle, content) :]
        sync(self._handle)


def items_digest(job: Job) -> str:
    """Which images a job has, and where they belong."""
    placed = zip(job.positions, job.items, strict=True)
    return digest_of("".join(f"{position} {item.key}\n" for position, item in placed).encode())


def _parse(line: bytes) -> dict | None:
    digest, _, text = line.partition(b" ")
    return json.loads(text) if digest.decode("ascii", "replace") == digest_of(text)[:32] else None
