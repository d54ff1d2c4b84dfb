"""Decoding one chunk of images into its place in a file: what a worker process does."""

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vqlib.data.images import BadImageError, to_array
from vqlib.data.reader import CHUNK
from vqlib.data.sources import Item
from vqlib.data.system import sync
from vqlib.errors import DataError


class Job(NamedTuple):
    """One chunk to be written."""

    split: str
    number: int  # of the chunk in its split
    path: Path  # of the array that it goes into
    image_size: int
    resize: str
    items: list[Item]
    read: Callable[[Any], bytes | Image.Image]


class Written(NamedTuple):
    """What came of a job. Where an image was bad, the chunk is not whole and ``sha256`` is None."""

    sha256: str | None
    odd: dict[str, list[int]]  # kind -> positions in the split
    dropped: dict[str, str]  # "<wnid>/<name>" -> reason


def write_chunk(job: Job) -> Written:
    """Read, decode and resize each image, write it to its place, and return once the disk has them all."""
    total, odd, dropped = hashlib.sha256(), {}, {}
    first = job.number * CHUNK
    handle = os.open(job.path, os.O_WRONLY)
    try:
        offset = first * job.image_size**2 * 3  # bytes
        for position, item in enumerate(job.items, start=first):
            try:
                image, kinds = to_array(job.read(item.place), item.name, job.image_size, job.resize)
            except BadImageError as error:
                dropped[item.key] = str(error)
                continue
            if dropped:
                continue  # the chunk will be made again without them
            for kind in kinds:
                odd.setdefault(kind, []).append(position)
            content = image.tobytes()
            total.update(content)
            while content:
                written = os.pwrite(handle, content, offset)
                content, offset = content[written:], offset + written
        sync(handle)
    finally:
        os.close(handle)
    return Written(None, {}, dropped) if dropped else Written(total.hexdigest(), odd, {})


def write_chunks(jobs: Iterable[Job], workers: int, finished: Callable[[Job, Written], None]) -> None:
    """Run the jobs in ``workers`` processes, or in this one if that is 1, and report each as it ends.

    Processes are spawned, so a script that gets here needs ``if __name__ == "__main__":`` around what it does.

    Raises:
        DataError: a worker process died.
    """
    if workers == 1:
        for job in jobs:
            finished(job, write_chunk(job))
        return
    waiting, running = iter(jobs), {}
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        while True:
            for job in islice(waiting, 2 * workers - len(running)):
                running[pool.submit(write_chunk, job)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                finished(running.pop(future), future.result())
    except BrokenProcessPool:
        raise DataError(
            "a worker process of prepare died (killed, or out of memory); finished chunks are kept: "
            "start again, with fewer workers if memory was short"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle, and no worker outlives its parent, whose lock on the folder ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)
