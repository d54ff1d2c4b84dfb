"""Digests of source files: what no decoder can tell. Those of large archives are computed once and remembered."""

import hashlib
import json
import time
from pathlib import Path

from vqlib.errors import DataError
from vqlib.files import json_bytes, write_atomically
from vqlib.progress import Say

LISTS = {"SHA256SUMS": "sha256", "MD5SUMS": "md5"}  # as `sha256sum` and `md5sum` write them
BLOCK = 2**22  # bytes read at once


def listed_digests(content: bytes) -> dict[str, str]:
    """Name to hex digest, from lines such as ``<hex>  train/n01440764/n01440764_18.JPEG``."""
    pairs = (line.split(maxsplit=1) for line in content.decode("utf-8", "replace").splitlines() if line.strip())
    return {pair[-1].lstrip("*").removeprefix("./"): pair[0].lower() for pair in pairs}


def fits(content: bytes, digest: str) -> bool:
    """Whether ``content`` has the md5 or sha256 ``digest``."""
    return hashlib.new("md5" if len(digest) == 32 else "sha256", content).hexdigest() == digest


def check_archive(path: Path, digest: str, memory: Path, say: Say) -> None:
    """Refuse a file whose md5 or sha256 is another. ``memory`` is where digests are kept for the next time.

    Raises:
        DataError: the digest differs.
    """
    algorithm = "md5" if len(digest) == 32 else "sha256"
    state, known = path.stat(), _remembered(memory)
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {algorithm}"
    if key not in known:
        known[key] = _digest(path, algorithm, state.st_size, say)
        write_atomically(memory, json_bytes(known))
    if known[key] != digest:
        raise DataError(f"{path}: its {algorithm} is {known[key]}, it must be {digest}; get the file again")


def _remembered(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _digest(path: Path, algorithm: str, size: int, say: Say) -> str:
    total, done, start = hashlib.new(algorithm), 0, time.monotonic()
    last = start
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
            done += len(block)
            if (now := time.monotonic()) - last >= 2:
                last, rate = now, done / (now - start)
                say(f"{algorithm} of {path.name}: {done / 1e9:,.1f} of {size / 1e9:,.1f} GB, "
                    f"{rate / 1e6:,.0f} MB a second, {(size - done) / rate:,.0f} s left")  # fmt: skip
    return total.hexdigest()
