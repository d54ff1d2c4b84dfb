"""What differs between operating systems: Linux is the measure, macOS does without allocation."""

import os


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sync(handle: int) -> None:
    """Return once the content of the file is on disk."""
    getattr(os, "fdatasync", os.fsync)(handle)


def allocate(handle: int, size: int) -> None:
    """Give a file its size and every block of it. Raises OSError (ENOSPC) where the disk has too little room."""
    os.ftruncate(handle, size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
