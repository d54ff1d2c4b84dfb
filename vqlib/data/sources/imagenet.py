"""ImageNet (ILSVRC2012) in each of the layouts that it comes in, recognised by looking at what lies there.

Whatever the layout, labels are indices of sorted wnids, the items are the same, and so are the prepared data.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vqlib.data.sources import MAX_BYTES, Item, Source, SourceGoneError, digests, parquet, place_of, tars
from vqlib.data.sources.listing import Expected, Listed, some, whole_or_partial
from vqlib.data.sources.validation import label_flat
from vqlib.data.sources.wnid_tree import list_tree
from vqlib.errors import DataError
from vqlib.params import Data
from vqlib.progress import Progress, Say

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
MD5 = {TRAIN_TAR: "1d675b47d978889d74fa0da5fadfb00e", VAL_TAR: "29b22e2961454d5413ddabcf34fc5622"}
CLASS_TAR = re.compile(r"n\d{8}\.tar")
VAL_NAME = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")
TRAIN_NAME = r"\1_\d+\.JPEG"  # in a folder tree, after train/(wnid)/
MAX_CLASS_TAR = 2**31  # bytes
KAGGLE = "ILSVRC/Data/CLS-LOC"


CMYK = """n01739381_1309 n02077923_14822 n02447366_23489 n02492035_15739 n02747177_10752 n03018349_4028
n03062245_4620 n03347037_9675 n03467068_12171 n03529860_11437 n03544143_17228 n03633091_5218
n03710637_5125 n03961711_5286 n04033995_2932 n04258138_17003 n04264628_27969 n04336792_7448
n04371774_5854 n04596742_4225 n07583066_647 n13037406_4650"""
ODD = {"cmyk": frozenset(f"{name}.JPEG" for name in CMYK.split()), "png_as_jpeg": frozenset({"n02105855_2933.JPEG"})}
ILSVRC2012 = Expected("ILSVRC2012", classes=1000, train=1_281_167, test=50_000, test_per_class=50, odd=ODD)


def find(data: Data, root: Path, say: Say) -> Source:
    """List the folder at ``data.path``; where there is none, the archives may lie in the folder that should hold it."""
    folder = place_of(data, root)
    if not folder.exists() and (folder.parent / TRAIN_TAR).exists():
        folder = folder.parent
    if not folder.is_dir():
        raise SourceGoneError(
            f"{folder} is missing: put ImageNet there as {', '.join(LAYOUTS)} (data/README.md has the files of each), "
            "or let the environment variable VQLIB_RAW name the folder that stands in for data/raw"
        )
    found = [name for name, layout in LAYOUTS.items() if layout.is_in(folder)]
    if len(found) != 1:
        lying = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
        inside = [sub for sub in sorted(folder.iterdir()) if any(layout.is_in(sub) for layout in LAYOUTS.values())]
        hint = f"; {inside[0]} holds one: let data.path name that folder" if inside and not found else ""
        raise (DataError if found else SourceGoneError)(
            f"{folder}: found {' and '.join(found) or 'no layout of ImageNet'} (there lie {lying or 'no files'}); "
            f"expected is one of {', '.join(f'{name} ({layout.sign})' for name, layout in LAYOUTS.items())}{hint}"
        )
    listed = LAYOUTS[found[0]].list(folder, data.partial, say)
    source = whole_or_partial(listed, ILSVRC2012, data.partial, folder)
    if not listed.files:
        return source
    originals = MD5 if found[0] == "archives" and not data.partial else {}
    memory = root / "data" / "prepared" / "digests.json"
    return replace(source, check=lambda: digests.check_files(listed.files, folder, originals, memory, say))


def _archives(folder: Path, partial: bool, say: Say) -> Listed:
    train_tar, val_tar = folder / TRAIN_TAR, folder / VAL_TAR
    if not val_tar.exists():
        raise DataError(f"{val_tar} is missing, while {TRAIN_TAR} is there; put both into that folder")
    train, flat = [], {}
    bar = Progress(f"listed {TRAIN_TAR}", digests.megabytes(train_tar.stat().st_size), "MB", to=say)
    for inner in tars.members(train_tar, CLASS_TAR, MAX_CLASS_TAR):
        wnid = inner.name.removesuffix(".tar")
        for image in tars.members(train_tar, re.compile(rf"{wnid}_\d+\.JPEG"), MAX_BYTES, within=inner):
            train.append(Item(wnid, image.name, str(image.size), (0, image.offset, image.size)))
        bar.update((inner.offset + inner.size) // 10**6)
    bar.close()
    for image in tars.members(val_tar, VAL_NAME, MAX_BYTES):
        flat[image.name] = (str(image.size), (1, image.offset, image.size))
    some(train, train_tar, "<wnid>.tar with <wnid>_<number>.JPEG in it")
    some(flat, val_tar, "ILSVRC2012_val_<8 digits>.JPEG")
    test = label_flat(flat, folder, partial)
    read = functools.partial(tars.read_range, (str(train_tar), str(val_tar)))
    return Listed(train, test, read, files=[train_tar, val_tar])


def _folder(folder: Path, partial: bool, say: Say, top: str = "") -> Listed:
    return list_tree(folder / top, folder, TRAIN_NAME, partial, say)


def _parquet(folder: Path, partial: bool, say: Say) -> Listed:
    paths = parquet.shards(_shard_folder(folder))
    shards = paths["train"] + paths["validation"]
    bar = Progress("listed", len(shards), "shards", to=say)
    train = list(parquet.rows(paths["train"], 0, bar))
    test = list(parquet.rows(paths["validation"], len(paths["train"]), bar))
    bar.close()
    some(train, folder, "rows of train-*.parquet")
    some(test, folder, "rows of validation-*.parquet")
    labels = sorted({(item.wnid, label) for label, item in train + test})
    numbers = [label for _, label in labels]
    if len({wnid for wnid, _ in labels}) != len(labels) or numbers != sorted(set(numbers)):
        raise DataError(
            f"{folder}: labels are not in the order of wnids: {labels[:3]} ...; names or labels are mixed up"
        )
    read = functools.partial(parquet.read_row, tuple(map(str, shards)))
    return Listed([item for _, item in train], [item for _, item in test], read, parquet.row_group, files=shards)


def _shard_folder(folder: Path) -> Path:
    return folder / "data" if (folder / "data").is_dir() else folder


class Layout(NamedTuple):
    """A way in which ImageNet lies on disk."""

    sign: str  # what it is known by
    is_in: Callable[[Path], bool]
    list: Callable[[Path, bool, Say], Listed]


LAYOUTS = {
    "archives": Layout(TRAIN_TAR, lambda folder: (folder / TRAIN_TAR).exists(), _archives),
    "a folder tree": Layout("train/<wnid>", lambda folder: (folder / "train").is_dir(), _folder),
    "Kaggle's tree": Layout(
        f"{KAGGLE}/train", lambda folder: (folder / KAGGLE).is_dir(), functools.partial(_folder, top=KAGGLE)
    ),
    "parquet shards": Layout(
        "data/train-*.parquet", lambda folder: any(_shard_folder(folder).glob("train-*.parquet")), _parquet
    ),
}
