"""Tar archives that are read where they lie, never extracted, and only if they are what they have to be.

Accepted are regular files of the expected names, one after another, closed by two blocks of zeros. A link, a device, a
sparse file, a name or a size that a PAX header overrides, the same name twice, a missing end: each is refused when the
archive is listed, before any content is looked at.
"""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vqlib.errors import DataError

BLOCK = 512
ZEROS = bytes(BLOCK)
MAX_PADDING = 2**20  # bytes of zeros after the end
MAX_PAX = 2**16
REGULAR = (b"0", b"\0")
KINDS = {
    **{b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": "a folder"},
    **{b"6": "a fifo", b"L": "a long name", b"K": "a long link", b"S": "a sparse file"},
}
STARTS = {
    b"\x1f\x8b": "is compressed by gzip, it must be the plain tar: decompress it with `gunzip`",
    b"bzh": "is compressed by bzip2, it must be the plain tar: decompress it with `bunzip2`",
    b"\xfd7zxz": "is compressed by xz, it must be the plain tar: decompress it with `unxz`",
    b"<": "is a web page and no tar: the download went wrong; get the file again",
}
HARMLESS = {b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname", b"comment"}  # keys of PAX headers


class Member(NamedTuple):
    """A file inside an archive: ``size`` bytes from ``offset`` on."""

    name: str
    offset: int
    size: int


def members(
    path: Path, expected: re.Pattern[str], largest: int, within: Member | None = None, handle: int | None = None
) -> Iterator[Member]:
    """The files of the archive at ``path``, or of the one that is the member ``within`` of it.

    Args:
        expected: what each name has to match in full.
        largest: bytes that a file may have.
        handle: ``path`` opened, where it is open already.

    Raises:
        DataError: it is truncated or damaged, or holds anything else.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; it must be the archive itself, not what was extracted from it")
    if handle is None:
        with open(path, "rb") as file:
            yield from members(path, expected, largest, within, file.fileno())
        return
    where = f"{path}: {within.name}" if within else str(path)
    offset, end = (within.offset, within.offset + within.size) if within else (0, os.fstat(handle).st_size)
    seen: set[str] = set()
    while True:
        header = os.pread(handle, BLOCK, offset)
        if not seen:
            _check_start(header, where)
        if offset + BLOCK > end:
            raise DataError(f"{where} is cut off after {len(seen):,} files: its closing zero blocks are missing")
        offset += BLOCK
        if header == ZEROS:
            _check_end(handle, offset, end, where)
            return
        name, size, kind = _parse(header, f"{where}, at byte {offset - BLOCK:,}")
        if offset + size > end:
            raise DataError(
                f"{where} is cut off in {name[:80]!r}: {size:,} bytes belong to it, {end - offset:,} follow"
            )
        if kind in (b"x", b"g"):
            _check_pax(os.pread(handle, min(size, MAX_PAX), offset), size, where)
        elif kind == b"5" and (name in ("./", ".") or (name.endswith("/") and expected.fullmatch(name))):
            pass  # `tar -cf x.tar .` begins with such a folder; only of the devkit any other is expected
        else:
            name = name.removeprefix("./")
            _check_member(name, size, kind, expected, largest, seen, where)
            seen.add(name)
            yield Member(name, offset, size)
        offset += -(-size // BLOCK) * BLOCK


def _check_start(header: bytes, where: str) -> None:
    for start, what in STARTS.items():
        if header.lstrip().lower().startswith(start):
            raise DataError(f"{where} {what}")


def _parse(header: bytes, where: str) -> tuple[str, int, bytes]:
    """(name, size, kind) of a header whose checksum is right."""
    try:
        checksum, size = (int(header[part].strip(b" \0") or b"0", 8) for part in (slice(148, 156), slice(124, 136)))
    except ValueError:  # sizes of 8 GiB and more are not written in octal
        raise DataError(f"{where} stands no tar header, or that of a giant file") from None
    if checksum != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
        raise DataError(f"{where} stands no tar header: its checksum is wrong")
    name, prefix = (header[part].split(b"\0")[0].decode("ascii", "replace") for part in (slice(100), slice(345, 500)))
    is_posix = header[257:263] == b"ustar\0"
    return f"{prefix}/{name}" if is_posix and prefix else name, size, header[156:157]


def _check_member(
    name: str, size: int, kind: bytes, expected: re.Pattern[str], largest: int, seen: set[str], where: str
) -> None:
    if kind not in REGULAR:
        raise DataError(
            f"{where}: {name[:80]!r} is {KINDS.get(kind, f'of kind {kind!r}')}; only plain files belong there"
        )
    if not expected.fullmatch(name):
        raise DataError(f"{where}: {name[:80]!r} does not belong there; a name must be {in_words(expected)}")
    if name in seen:
        raise DataError(f"{where}: {name} is in it twice")
    if size > largest:
        raise DataError(f"{where}: {name} has {size:,} bytes; there it has at most {largest:,}")


def in_words(expected: re.Pattern[str]) -> str:
    r"""``n\d{8}\.tar`` as ``n<8 digits>.tar``"""
    words = {r"\d{8}": "<8 digits>", r"\d+": "<number>", ".*": "<path>", "\\": ""}
    return functools.reduce(lambda text, code: text.replace(code, words[code]), words, expected.pattern)


def _check_pax(content: bytes, size: int, where: str) -> None:
    """Refuse extended headers that say more than times and owners."""
    while content and size <= MAX_PAX:
        length, _, rest = content.partition(b" ")
        key = rest.partition(b"=")[0]
        if not length.isdigit() or int(length) <= len(length) or key not in HARMLESS:
            break
        content = content[int(length) :]
    if content:
        raise DataError(f"{where}: a PAX header overrides {content[:40]!r}; only times and owners may stand in one")


def _check_end(handle: int, offset: int, end: int, where: str) -> None:
    rest = os.pread(handle, MAX_PADDING + 1, offset)[: max(end - offset, 0)]
    if len(rest) < BLOCK:
        raise DataError(f"{where} is cut off: only one of its two closing zero blocks is there")
    if rest.strip(b"\0") or end - offset > MAX_PADDING:
        raise DataError(f"{where}: something follows after its end")


def read_range(paths: tuple[str, ...], place: tuple[int, int, int]) -> bytes:
    """``place`` is (number of the archive in ``paths``, offset, size).

    Raises:
        DataError: the archive has become shorter.
    """
    number, offset, size = place
    path = paths[number]
    content = os.pread(_opened(path, os.stat(path).st_mtime_ns), size, offset)
    if len(content) != size:
        raise DataError(f"{path} has changed while it was read: {size:,} bytes at {offset:,} are not there")
    return content


@functools.lru_cache(maxsize=4)
def _opened(path: str, modified: int) -> int:
    """An open archive, kept open; ``modified`` makes a replaced file another one."""
    return os.open(path, os.O_RDONLY)
