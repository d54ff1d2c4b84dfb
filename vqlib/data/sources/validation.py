"""Which class each validation image of ILSVRC2012 has: four ways in which that is written down."""

import csv
import gzip
import io
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vqlib.data.sources import Item, matlab, tars
from vqlib.errors import DataError

WNID = re.compile(r"n\d{8}")
ALL = 50_000  # validation images
MAX_BYTES = 2**24  # of one such file; the largest has 2 MB
MAX_DEVKIT = 2**25  # of all files of the devkit together
WNIDS, SOLUTION = "ILSVRC2012_val_wnids.txt", "LOC_val_solution.csv"
DEVKIT, DEVKIT_TAR = "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12.tar.gz"
TRUTH, META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
IN_DEVKIT = re.compile(rf"{DEVKIT}/.*")
EXPECTED = f"{DEVKIT_TAR} (or its folder), {WNIDS} (one wnid a line) or {SOLUTION}"


def wnids_of(folder: Path) -> dict[str, str]:
    """File name to wnid, by what lies in ``folder``.

    Raises:
        DataError: none of the four files is there, one is damaged, or two of them disagree.
    """
    found = {name: read(folder / name) for name, read in READERS.items() if (folder / name).exists()}
    if not found:
        raise DataError(f"{folder}: what class a validation image has is not said; expected is {EXPECTED}")
    (first, wnids), *others = found.items()
    for name, other in others:
        if other != wnids:
            raise DataError(f"{folder}: {first} and {name} disagree about the classes of validation images")
    return wnids


def label_flat(images: dict[str, tuple[str, Any]], folder: Path, partial: bool) -> list[Item]:
    """Items of validation images that lie in no folder of their class: ``images`` maps name to (identity, place).

    Raises:
        DataError: the list in ``folder`` is one of other images. With ``partial`` it may be that of all 50,000.
    """
    wnids = wnids_of(folder)
    is_list_of_all = partial and len(wnids) == ALL
    alone = images.keys() - wnids.keys() or (set() if is_list_of_all else wnids.keys() - images.keys())
    if alone:
        raise DataError(
            f"{folder}: found {len(images):,} validation images, and classes for {len(wnids):,}; "
            f"{min(alone)} is in one of the two alone ({len(alone):,} such)"
        )
    return [Item(wnids[name], name, identity, place) for name, (identity, place) in images.items()]


def _from_wnids(path: Path) -> dict[str, str]:
    return _numbered(_read(path).decode("utf-8-sig", "replace").split(), path)


def _from_solution(path: Path) -> dict[str, str]:
    try:
        rows = list(csv.reader(io.StringIO(_read(path).decode("utf-8-sig", "replace"))))
    except csv.Error as error:  # such as a quote that is never closed
        raise DataError(f"{path} is no readable CSV ({error}); get the file again") from None
    if not rows or rows[0] != ["ImageId", "PredictionString"]:
        raise DataError(f"{path} must begin with the line ImageId,PredictionString")
    wnids = {f"{row[0]}.JPEG": (row[1].split() or [""])[0] for row in rows[1:] if len(row) == 2}
    if len(wnids) != len(rows) - 1:
        raise DataError(f"{path} names {len(wnids):,} images in {len(rows) - 1:,} lines")
    return _checked(wnids, path)


def _from_devkit(path: Path) -> dict[str, str]:
    return _join(_read(path / TRUTH), _read(path / META), path)


def _from_devkit_tar(path: Path) -> dict[str, str]:
    """No more than ``MAX_DEVKIT`` bytes are decompressed, and they are listed as guardedly as any other tar."""
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_DEVKIT + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is damaged or no .tar.gz ({error}); get the file again") from None
    if len(content) > MAX_DEVKIT:
        raise DataError(f"{path} has more than {MAX_DEVKIT:,} bytes inside, so it is not what its name says")
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        listed = tars.members(path, IN_DEVKIT, MAX_BYTES, handle=file.fileno())
        contents = {member.name: os.pread(file.fileno(), member.size, member.offset) for member in listed}
    truth, meta = (contents.get(f"{DEVKIT}/{name}") for name in (TRUTH, META))
    if truth is None or meta is None:
        raise DataError(f"{path} must hold {DEVKIT}/{TRUTH} and {DEVKIT}/{META}")
    return _join(truth, meta, path)


READERS: dict[str, Callable[[Path], dict[str, str]]] = {
    WNIDS: _from_wnids,
    SOLUTION: _from_solution,
    DEVKIT: _from_devkit,
    DEVKIT_TAR: _from_devkit_tar,
}


def _join(truth: bytes, meta: bytes, path: Path) -> dict[str, str]:
    """The ground truth counts ILSVRC2012_ID from 1, which is not the order of sorted wnids: meta.mat has the wnids."""
    try:
        synsets = matlab.read_structs(meta, "synsets")
        wnid_of = {int(synset["ILSVRC2012_ID"][0]): synset["WNID"] for synset in synsets}
        wnids = [wnid_of[int(number)] for number in truth.split()]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: the ground truth and meta.mat do not fit together ({error!r})") from None
    except DataError as error:
        raise DataError(f"{path}: {META} is {error}") from None
    return _numbered(wnids, path)


def _numbered(wnids: list[str], path: Path) -> dict[str, str]:
    return _checked({f"ILSVRC2012_val_{number:08d}.JPEG": wnid for number, wnid in enumerate(wnids, start=1)}, path)


def _checked(wnids: dict[str, str], path: Path) -> dict[str, str]:
    for name, wnid in wnids.items():
        if not WNID.fullmatch(wnid):
            raise DataError(f"{path}: {wnid[:40]!r}, given for {name[:80]}, is no wnid such as n01440764")
    return wnids


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} must be a file, and is {'a folder' if path.is_dir() else 'missing'}")
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES:,} bytes, so it is not what its name says")
    return content
