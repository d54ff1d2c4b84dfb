"""Writing so that a crash at any moment leaves either the old file or the new one, and locking out second writers."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vqlib.errors import BusyError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: temporary file in the same directory, fsync, rename, fsync of the directory.

    Raises OSError (full disk, read-only folder) with the old file untouched and no temporary file left. What a writer
    that was killed has left behind, the next one removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not _is_running(old.suffixes[-2][1:]):
            old.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _naming(path):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError of a file that is open already names no file, and others name the temporary one."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def in_one_line(place: Path) -> Iterator[None]:
    """A full, read-only or failing disk ends the work in one line that names the file, or else ``place``.

    Raises:
        StorageError: instead of any OSError.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        mend = "free some space" if error.errno in FULL else "make it readable and writable"
        what = error.filename or place
        raise StorageError(f"{what}: {reason}; {mend} and start again: what was saved is kept") from None


def sync_directory(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_bytes(value: Any) -> bytes:
    """JSON as it is written and hashed everywhere here: UTF-8, indented, keys in the order given, no NaN."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def rounded(value: Any, digits: int = 4) -> Any:
    """Floats to significant digits, through nested dicts and lists."""
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def digest_of(content: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def digest_of_files(paths: Iterable[Path], relative_to: Path) -> str:
    """One sha256 over names and contents of files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(relative_to).as_posix()}\0{digest_of(path.read_bytes())}\n".encode())
    return total.hexdigest()


@contextlib.contextmanager
def exclusive(folder: Path, doing: str) -> Iterator[None]:
    """Hold ``folder`` for this process; a second process is told at once which pid holds it.

    The lock is the kernel's (flock), so it ends with the process however that ends.

    Raises:
        BusyError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise BusyError(
                f"{folder}: process {owner} is already {doing} here; wait for it or end it, then start again"
            ) from None
        with _naming(folder):
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
        yield
