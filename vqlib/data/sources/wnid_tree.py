"""Folders of images, one folder a class: train/<wnid>/ and val/<wnid>/, or a flat val/ with a list of its classes."""

import re
from pathlib import Path

from vqlib.data.sources.listing import Listed
from vqlib.data.sources.trees import open_tree
from vqlib.data.sources.validation import label_flat
from vqlib.errors import DataError

VAL = re.compile(r"val/(?:(n\d{8})/)?(ILSVRC2012_val_\d{8}\.JPEG|\1_\d+\.JPEG)")


def list_tree(top: Path, beside: Path, train_name: str, partial: bool) -> Listed:
    """The images under ``top``; what classes a flat val/ has is read from a file in ``beside``.

    Args:
        train_name: what the name of a training image has to match, its wnid being group 1.

    Raises:
        DataError: other files are there too, or val/ has some images in folders and some not.
    """
    tree, train_file = open_tree(top, inside="train/"), re.compile(rf"train/(n\d{{8}})/({train_name})")
    train, test, flat, strange = [], [], {}, []
    for file in sorted(tree.sizes):
        if match := train_file.fullmatch(file):
            train.append(tree.item(*match.groups(), file))
        elif match := VAL.fullmatch(file):
            wnid, name = match.groups()
            item = tree.item(wnid or "", name, file)
            if wnid:
                test.append(item)
            else:
                flat[name] = (item.identity, item.place)
        elif file.startswith(("train/", "val/")):
            strange.append(file)
    if strange:
        raise DataError(
            f"{top}: {len(strange):,} files do not belong there, the first is {strange[0]}; {len(train):,} images are "
            f"in train/<wnid>/, {len(test) + len(flat):,} in val/, and nothing else may be"
        )
    if flat and test:
        raise DataError(
            f"{top}: val is moved by half: {len(flat):,} images lie in val/ itself, {len(test):,} in folders of classes"
        )
    return Listed(train, label_flat(flat, beside, partial) if flat else test, tree.read_place)
