"""Decoding about a chunk of images into their places in a file: what a worker process does."""

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vqlib.data.images import BadImageError, to_array
from vqlib.data.sources import Item
from vqlib.data.system import sync
from vqlib.errors import DataError


class Job(NamedTuple):
    """Images to be written: a chunk, or, of a source that has to be read in an order of its own, about as many."""

    split: str
    number: int  # of the job in its split
    path: Path  # of the array that it goes into
    image_size: int
    resize: str
    items: list[Item]
    positions: Sequence[int]  # of the items in the split
    read: Callable[[Any], bytes | Image.Image]
    quick: bool = False  # there is so much to do that compiling for it pays


class Written(NamedTuple):
    """What came of a job. Where an image was bad, the job is not done and ``sha256`` is None."""

    sha256: str | None  # over the images in the order of the job
    odd: dict[str, list[int]]  # kind -> positions in the split
    dropped: dict[str, str]  # "<wnid>/<name>" -> reason


def write_chunk(job: Job) -> Written:
    """Read, decode and resize each image, write it to its place, and return once the disk has them all."""
    total, odd, dropped = hashlib.sha256(), {}, {}
    length = job.image_size**2 * 3  # bytes of an image
    handle = os.open(job.path, os.O_WRONLY)
    try:
        for position, item in zip(job.positions, job.items, strict=True):
            try:
                image, kinds = to_array(job.read(item.place), item.name, job.image_size, job.resize, job.quick)
            except BadImageError as error:
                dropped[item.key] = str(error)
                continue
            if dropped:
                continue  # it will be done again without them
            for kind in kinds:
                odd.setdefault(kind, []).append(position)
            content, offset = image.tobytes(), position * length
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
