"""The layouts that images come in, one file each: ``<source>.find(data, root, say)`` lists one as a ``Source``.

A new layout costs one file here and its name in ``params.Data.source``. A source lists images in the order
(wnid, file name), whatever order they lie in, so the same images in any layout give the same prepared data.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vqlib.errors import DataError, ParameterError
from vqlib.params import Data, raw_path
from vqlib.progress import Say

MAX_BYTES = 64 * 2**20  # of one image file; a larger one is no image of ImageNet's


class SourceGoneError(DataError):
    """Nothing of the source is there."""


class Item(NamedTuple):
    """One image, not read yet."""

    wnid: str  # its class
    name: str  # its file name
    identity: str  # what tells another file of the same name without reading images: its size, or a digest
    place: Any  # what Source.read needs to find it

    @property
    def key(self) -> str:
        return f"{self.wnid}/{self.name}"


@dataclass(frozen=True)
class Source:
    """Items per split, ordered by (wnid, name). "validation" may lack: it is carved from "train"."""

    classes: list[str]  # sorted; a label is the index in this list
    items: dict[str, list[Item]]
    read: Callable[[Any], bytes | Image.Image]  # place -> an image file, or RGB; runs in workers, so it can be pickled
    group: Callable[[Any], Any] | None = None  # place -> what is read as a whole to get at it; None: the image alone
    whole: bool = False  # every image can be read: one that cannot ends the preparation instead of being dropped
    odd: Mapping[str, frozenset[str]] = field(default_factory=dict)  # kind -> the names that it has outside of test
    check: Callable[[], None] = lambda: None  # reads large files for their digests; raises DataError
    lists: str = ""  # sha256 of the list of digests that ``read`` checks images by; "" without one


def resolve(data: Data, root: Path, say: Say | None = None) -> Source:
    """List the source that ``data`` names, with its limit applied and the validation images taken out of train.

    Raises:
        DataError: it is missing, partial, damaged or not the layout that was asked for.
    """
    source = importlib.import_module(f"vqlib.data.sources.{data.source}").find(data, root, say or _quiet)
    train = [item for _, of_class in by_class(source.items["train"]) for item in first(of_class, data.limit)]
    items = {**source.items, "train": train}
    if "validation" not in items:
        items["train"], items["validation"] = carve_validation(train, data.validation_every)
    for split in ("train", "validation"):
        if not items[split]:
            raise DataError(
                f"{data.source} has no {split} images with limit {data.limit} and "
                f"validation_every {data.validation_every}; raise data.limit"
            )
    return replace(source, items=items)


def place_of(data: Data, root: Path) -> Path:
    """The file or folder that ``data.path`` names. Raises ParameterError where it is null."""
    if data.path is None:
        raise ParameterError(
            f"data.path is null; for the source {data.source} it must be a path such as data/raw/{data.source}"
        )
    return raw_path(data.path, root)


def first(items: list[Item], limit: int | None) -> list[Item]:
    """The ``limit`` first by the numbers in their names (2 before 10), in the order in which ``items`` stand."""
    if limit is None:
        return items
    kept = {item.name for item in sorted(items, key=lambda item: _by_number(item.name))[:limit]}
    return [item for item in items if item.name in kept]


def _by_number(name: str) -> list[tuple[int, str]]:
    parts = enumerate(re.split(r"([0-9]{1,9})", name))  # int() refuses thousands of digits
    return [(int(part), part) if place % 2 else (0, part) for place, part in parts]


def by_class(items: list[Item]) -> list[tuple[str, list[Item]]]:
    return [(wnid, list(of_class)) for wnid, of_class in groupby(items, key=lambda item: item.wnid)]


def carve_validation(items: list[Item], every: int) -> tuple[list[Item], list[Item]]:
    """(train, validation): of each class the images 0, every, 2 every, ... are for validation.

    Classes of fewer than ``every`` images count together as one, so that each does not give up its only image.
    """
    train, validation, pooled = [], [], 0
    for _, of_class in by_class(items):
        is_small = len(of_class) < every
        for position, item in enumerate(of_class, start=pooled if is_small else 0):
            (train if position % every else validation).append(item)
        pooled += len(of_class) if is_small else 0
    return train, validation


def _quiet(line: str) -> None:
    pass
