"""Digests of source files: what no decoder can tell. Those of large archives are computed once and remembered."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vqlib.errors import DataError
from vqlib.files import json_bytes, write_atomically
from vqlib.progress import Progress, Say

LISTS = {"SHA256SUMS": "sha256", "MD5SUMS": "md5"}  # as `sha256sum` and `md5sum` write them
LINE = re.compile(r"((?:[0-9a-fA-F]{32}){1,2})\s+\*?(?:\./)?(\S.*)")
UNCHECKED = "no SHA256SUMS or MD5SUMS is there, so damage that no decoder notices is not found"
BLOCK = 2**22  # bytes read at once


def listed_digests(lines: Iterable[bytes], path: Path) -> dict[str, str]:
    """Name to hex digest, from lines such as ``<hex>  train/n01440764/n01440764_18.JPEG``.

    Raises:
        DataError: a line is none such, or a name has two digests.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r\n")
        match = LINE.fullmatch(text)
        if match and found.setdefault(match[2], match[1].lower()) == match[1].lower():
            continue
        if match or text.strip():
            raise DataError(
                f"{path}, line {number}: {text[:60]!r} must be 32 or 64 hex digits and the name of a file that has no "
                "other digest, as md5sum and sha256sum write them"
            )
    return found


def compare(listed: Iterable[str], found: Iterable[str], lists: str) -> None:
    """Refuse ``lists`` of other files than those that were found.

    Raises:
        DataError: one is in one of the two alone; the message has the counts.
    """
    listed, found = set(listed), set(found)
    if listed != found:
        example = min(found - listed, default=None)
        what = f"{example} is not listed" if example else f"{min(listed - found)} is listed and not there"
        raise DataError(
            f"{lists} must list just the images or archives that are there: {len(listed):,} files are listed, "
            f"{len(found):,} are there, {len(listed & found):,} are both; {what} (names count from that folder on)"
        )


def digest_of_list(listed: dict[str, str]) -> str:
    """sha256 over a list; "" of none."""
    total = hashlib.sha256()
    for name in sorted(listed):
        total.update(f"{listed[name]}  {name}\n".encode())
    return total.hexdigest() if listed else ""


def fits(content: bytes, digest: str) -> bool:
    """Whether ``content`` has the md5 or sha256 ``digest``."""
    return hashlib.new("md5" if len(digest) == 32 else "sha256", content).hexdigest() == digest


def check_files(files: Sequence[Path], folder: Path, originals: dict[str, str], memory: Path, say: Say) -> None:
    """Refuse large files that do not have the digests of ``originals``, by name, and of each list in their folders.

    Raises:
        DataError: a digest differs, or a list lacks one of the files.
    """
    wanted = [(folder / name, digest) for name, digest in originals.items()]
    for top in dict.fromkeys([folder, files[0].parent]):
        names = {file.relative_to(top).as_posix(): file for file in files}
        for path in (top / name for name in LISTS if (top / name).is_file()):
            with open(path, "rb") as lines:
                listed = listed_digests(lines, path)
            compare(listed.keys() & names, names, str(path))
            wanted += [(names[name], listed[name]) for name in names]
    for path, digest in dict.fromkeys(wanted):
        check_archive(path, digest, memory, say)
    say(f"{folder}: {f'the digests of {len(files):,} files are those expected' if wanted else UNCHECKED}")


def check_archive(path: Path, digest: str, memory: Path, say: Say) -> None:
    """Refuse a file whose md5 or sha256 is another. ``memory`` is where digests are kept for the next time.

    Raises:
        DataError: the digest differs.
    """
    algorithm = "md5" if len(digest) == 32 else "sha256"
    state, known = path.stat(), _remembered(memory)
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {algorithm}"
    if key not in known:
        known[key] = digest_of_file(path, algorithm, say)
        write_atomically(memory, json_bytes(known))
    if known[key] != digest:
        raise DataError(f"{path}: its {algorithm} is {known[key]}, it must be {digest}; get the file again")


def _remembered(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def digest_of_file(path: Path, algorithm: str, say: Say) -> str:
    """In hex; ``algorithm`` is as of hashlib."""
    total, done = hashlib.new(algorithm), 0
    bar = Progress(f"{algorithm} of {path.name}", megabytes(path.stat().st_size), "MB", to=say)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
            done += len(block)
            bar.update(megabytes(done))
    bar.close()
    return total.hexdigest()


def megabytes(size: int) -> int:
    """Of so many bytes, rounded up."""
    return -(-size // 10**6)
