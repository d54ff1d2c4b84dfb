"""Tiny ImageNet as it is handed out, a zip or the folder that comes out of it.

``train/<wnid>/images/<wnid>_<n>.JPEG``, ``val/images/*.JPEG`` with ``val/val_annotations.txt``, and ``wnids.txt``.
The 10,000 images of test/ have no public labels and are not used. Fewer training images per class than the 500 of the
original are fine; a class, an annotation or an annotated image that is missing is not.
"""

import re
from collections import defaultdict
from pathlib import Path

from vqlib.data.sources import Item, Source, SourceGoneError, place_of
from vqlib.data.sources.digests import digest_of_list
from vqlib.data.sources.trees import Tree, open_tree
from vqlib.errors import DataError
from vqlib.params import Data
from vqlib.progress import Say

GET_IT = "237 MB from http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TRAIN = re.compile(r"train/([^/]+)/(?:images/([^/]+)|[^/]+_boxes\.txt)")
WNID = re.compile(r"n\d{8}")


def find(data: Data, root: Path, say: Say) -> Source:
    """List the zip at ``data.path``, or the folder there or at the same path without ``.zip``."""
    path = place_of(data, root)
    if not path.exists() and path.with_suffix("").is_dir():
        path = path.with_suffix("")
    if not path.exists():
        raise SourceGoneError(
            f"{path} is missing: put Tiny ImageNet there, the zip or its folder ({GET_IT}), or let the "
            "environment variable VQLIB_RAW name the folder that holds it in place of data/raw"
        )
    tree = open_tree(path, inside="train/", say=say)
    train = _train(tree)
    test = _test(tree, set(train))
    items = {"train": [item for wnid in sorted(train) for item in train[wnid]], "test": test}
    return Source(sorted(train), items, tree.read_place, lists=digest_of_list(tree.digests))


def _train(tree: Tree) -> dict[str, list[Item]]:
    classes = defaultdict(list)
    for file in sorted(file for file in tree.sizes if file.startswith("train/")):
        match = TRAIN.fullmatch(file)
        wnid, name = match.groups() if match else (None, None)
        if not match or not WNID.fullmatch(wnid) or (name and not re.fullmatch(rf"{wnid}_\d+\.JPEG", name)):
            raise DataError(
                f"{tree.path}: {file} does not belong there; "
                "expected are train/<wnid>/images/<wnid>_<number>.JPEG alone"
            )
        if name:
            classes[wnid].append(tree.item(wnid, name, file))
    expected = set(tree.read("wnids.txt").decode("utf-8-sig", "replace").split()) if "wnids.txt" in tree.sizes else None
    if expected is not None and set(classes) != expected:
        raise DataError(f"{tree.path}: {_compare('classes in train/', set(classes), 'in wnids.txt', expected)}")
    return classes


def _test(tree: Tree, classes: set[str]) -> list[Item]:
    if "val/val_annotations.txt" not in tree.sizes:
        raise DataError(f"{tree.path}: val/val_annotations.txt is missing, so the validation images have no labels")
    lines = tree.read("val/val_annotations.txt").decode("utf-8-sig", "replace").splitlines()
    wnid_of = {}
    for number, line in enumerate(lines, start=1):
        name, wnid = [*line.split("\t"), ""][:2]
        if not WNID.fullmatch(wnid) or name in wnid_of:
            raise DataError(
                f"{tree.path}: val/val_annotations.txt, line {number}: {line[:60]!r} is no new file and wnid"
            )
        wnid_of[name] = wnid
    found = {file.removeprefix("val/images/") for file in tree.sizes if file.startswith("val/")}
    found.remove("val/val_annotations.txt")
    if found != set(wnid_of):
        raise DataError(
            f"{tree.path}: {_compare('files in val/images/', found, 'in val_annotations.txt', set(wnid_of))}"
        )
    if set(wnid_of.values()) != classes:
        what = _compare("classes in train/", classes, "in val_annotations.txt", set(wnid_of.values()))
        raise DataError(f"{tree.path}: {what}")
    ordered = sorted((wnid, name) for name, wnid in wnid_of.items())
    return [tree.item(wnid, name, f"val/images/{name}") for wnid, name in ordered]


def _compare(what: str, found: set[str], where: str, expected: set[str]) -> str:
    """``198 classes in train/, 200 in wnids.txt: missing n01443537 and 1 more``"""
    parts = [f"{len(found):,} {what}, {len(expected):,} {where}"]
    for word, names in (("missing", expected - found), ("too many", found - expected)):
        if names:
            parts.append(f"{word} {min(names)}" + (f" and {len(names) - 1:,} more" if len(names) > 1 else ""))
    return parts[0] + ": " + ", ".join(parts[1:])
