"""Hugging Face's parquet shards of ImageNet: rows ``{image: {bytes, path}, label}``, in no order.

The bytes are taken as they are; the library's own decoding would rotate by EXIF.
"""

import functools
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from vqlib.data.sources import MAX_BYTES, Item
from vqlib.errors import DataError
from vqlib.progress import Progress

SHARD = re.compile(r"(train|validation|test)-(\d{5})-of-(\d{5})(-[0-9a-f]+)?\.parquet")
NAME = re.compile(r"(n\d{8}_\d+|ILSVRC2012_val_\d{8})(?:_(n\d{8}))?\.JPEG")
COLUMNS = ["image.bytes", "image.path", "label"]


def shards(folder: Path) -> dict[str, list[Path]]:
    """The shards of ``train`` and ``validation``, in order.

    Raises:
        DataError: one is missing or too many.
    """
    found: dict[str, dict[int, Path]] = {"train": {}, "validation": {}}
    totals: dict[str, set[int]] = {"train": set(), "validation": set()}
    for path in sorted(folder.glob("*.parquet")):
        match = SHARD.fullmatch(path.name)
        if not match:
            raise DataError(f"{folder}: {path.name} does not belong there; expected is train-00000-of-00294.parquet")
        split, number, total = match[1], int(match[2]), int(match[3])
        if split in found:
            if number in found[split]:
                raise DataError(f"{folder}: {path.name} and {found[split][number].name} are the same shard")
            found[split][number] = path
            totals[split].add(total)
    for split, of_split in found.items():
        expected = max(totals[split], default=1)
        if set(of_split) != set(range(expected)) or len(totals[split]) > 1:
            missing = min(set(range(expected)) - set(of_split), default="none")
            raise DataError(
                f"{folder}: {len(of_split)} of {expected} {split} shards are there; number {missing} is missing"
            )
    return {split: [of_split[number] for number in sorted(of_split)] for split, of_split in found.items()}


def rows(paths: list[Path], first: int, bar: Progress) -> Iterator[tuple[int, Item]]:
    """(label, item) of every row; the shards are numbered from ``first`` on. Memory: one row group.

    Raises:
        DataError: a shard is damaged or of other columns, or an image has no name.
    """
    compute = _pyarrow("compute")
    for shard, path in enumerate(paths, start=first):
        file = _opened(str(path), path.stat().st_mtime_ns)
        for group in range(file.num_row_groups):
            table = _read_group(file, path, group, COLUMNS)
            image = table["image"].combine_chunks()
            sizes = compute.binary_length(image.field("bytes")).to_pylist()
            columns = zip(image.field("path").to_pylist(), sizes, table["label"].to_pylist(), strict=True)
            for row, (name, size, label) in enumerate(columns):
                match = NAME.fullmatch(name or "")
                if not match or size is None or not isinstance(label, int):
                    raise DataError(f"{path}: row {row} of group {group} is {name!r} with label {label!r}; "
                                    "expected is a name such as n01440764_10026_n01440764.JPEG")  # fmt: skip
                if size > MAX_BYTES:
                    raise DataError(f"{path}: {name} has {size:,} bytes; an image has at most {MAX_BYTES:,}")
                wnid = match[2] or match[1].split("_")[0]
                yield label, Item(wnid, f"{match[1]}.JPEG", str(size), (shard, group, row))
        bar.add(1)


def read_row(paths: tuple[str, ...], place: tuple[int, int, int]) -> bytes:
    """``place`` is (number of the shard in ``paths``, row group, row)."""
    shard, group, row = place
    path = paths[shard]
    return _images(path, os.stat(path).st_mtime_ns, group)[row].as_py()


def row_group(place: tuple[int, int, int]) -> tuple[int, int]:
    """What has to be read and decompressed as a whole to get at one row."""
    return place[:2]


@functools.lru_cache(maxsize=4)
def _images(path: str, modified: int, group: int):
    return _read_group(_opened(path, modified), path, group, ["image.bytes"])["image"].combine_chunks().field("bytes")


def _read_group(file, path: Path | str, group: int, columns: list[str]):
    try:
        return file.read_row_group(group, columns=columns, use_threads=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged in row group {group} ({str(error).splitlines()[0]})") from None


@functools.lru_cache(maxsize=8)
def _opened(path: str, modified: int):
    """An open shard; ``modified`` makes a replaced file another one."""
    try:
        file = _pyarrow("parquet").ParquetFile(path, memory_map=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no whole parquet file ({str(error).splitlines()[0]})") from None
    names = {file.schema.column(number).path for number in range(len(file.schema))}
    if missing := set(COLUMNS) - names:
        raise DataError(f"{path} lacks the column {min(missing)}; it has {', '.join(sorted(names)[:5])}")
    return file


def _pyarrow(part: str):
    """Imported late: the other layouts need none of it."""
    return importlib.import_module(f"pyarrow.{part}")
