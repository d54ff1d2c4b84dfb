"""What a source lists, and whether that is all of it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Sized
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from vqlib.data.sources import Item, Source
from vqlib.errors import DataError


class Listed(NamedTuple):
    """What a layout holds."""

    train: list[Item]
    test: list[Item]
    read: Callable
    group: Callable | None = None  # as of a Source
    lists: str = ""  # as of a Source
    files: Sequence[Path] = ()  # large files that the images lie in


class Expected(NamedTuple):
    """What the whole of a data set has."""

    name: str
    classes: int
    train: int
    test: int
    test_per_class: int | None
    odd: Mapping[str, frozenset[str]] = {}  # as of a Source


def some(images: Sized, where: Path, expected: str) -> None:
    """Raises DataError where there are no images."""
    if not images:
        lying = sorted(path.name for path in where.iterdir()) if where.is_dir() else []
        there = f" (there lie {', '.join(lying[:5]) or 'no files'})" if where.is_dir() else ""
        raise DataError(f"{where}: no images were found as {expected}{there}; get what is missing, or name it so")


def whole_or_partial(listed: Listed, expected: Expected, partial: bool, folder: Path) -> Source:
    """Items in order, if they are all that the data set has, or ``partial`` allows less.

    Raises:
        DataError: counts differ from ``expected``; the message has both.
    """
    train, test = (sorted(items, key=lambda item: (item.wnid, item.name)) for items in (listed.train, listed.test))
    for items in (train, test):
        for before, item in pairwise(items):
            if before.key == item.key:
                raise DataError(f"{folder}: {item.key} is in it twice")
    classes = sorted({item.wnid for item in train} | {item.wnid for item in test})
    per_class = set(Counter(item.wnid for item in test).values())
    of_train = len({item.wnid for item in train})
    found = f"{of_train:,} classes, {len(train):,} training, {len(test):,} validation images"
    if len(classes) > of_train:
        found += f" ({len(classes):,} classes in all)"
    whole = f"{expected.classes:,} classes, {expected.train:,} training, {expected.test:,} validation images"
    if not partial and found != whole:
        raise DataError(
            f"{folder}: found {found}; {expected.name} has {whole}: get what is missing, or set data.partial to true"
        )
    if not partial and expected.test_per_class and per_class != {expected.test_per_class}:
        raise DataError(
            f"{folder}: classes have {min(per_class)} to {max(per_class)} validation images each; "
            f"in {expected.name} each has {expected.test_per_class}"
        )
    odd = {} if partial else expected.odd
    items = {"train": train, "test": test}
    return Source(classes, items, listed.read, listed.group, not partial, odd, lists=listed.lists)
