"""Folders of images, one folder a class: train/<wnid>/ and val/<wnid>/, or a flat val/ with a list of its classes."""

import re
from pathlib import Path

from vqlib.data.sources.digests import digest_of_list
from vqlib.data.sources.listing import Listed, some
from vqlib.data.sources.trees import open_tree
from vqlib.data.sources.validation import label_flat
from vqlib.errors import DataError
from vqlib.progress import Say

VAL = re.compile(r"val/(?:(n\d{8})/)?(ILSVRC2012_val_\d{8}\.JPEG|\1_\d+\.JPEG)")


def list_tree(top: Path, beside: Path, train_name: str, partial: bool, say: Say) -> Listed:
    """The images under ``top``; what classes a flat val/ has is read from a file in ``beside``.

    Args:
        train_name: what the name of a training image has to match, its wnid being group 1.

    Raises:
        DataError: other files are there too, or val/ has some images in folders and some not.
    """
    tree, train_file = open_tree(top, inside="train/", say=say), re.compile(rf"train/(n\d{{8}})/({train_name})")
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
            f"in train/<wnid>/, {len(test) + len(flat):,} in val/, and nothing else may be: an image "
            "is named <wnid>_<number>.JPEG or ILSVRC2012_val_<8 digits>.JPEG, with just this ending"
        )
    if flat and test:
        raise DataError(
            f"{top}: val is moved by half: {len(flat):,} images lie in val/ itself, {len(test):,} in folders of classes"
        )
    some(train, top, "train/<wnid>/<wnid>_<number>.JPEG")
    some(test or flat, top, "val/<wnid>/*.JPEG or val/*.JPEG")
    test = test or label_flat(flat, beside, partial)
    return Listed(train, test, tree.read_place, lists=digest_of_list(tree.digests))
