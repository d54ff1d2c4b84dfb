"""Images of your own: JPEG or PNG in train/<class>/ and val/<class>/, a folder of them or a zip.

The images of val/ become the test split; validation images are taken out of train/, as everywhere. Classes are named by
their folders, and those of val/ may be fewer. An image that cannot be read ends the preparation, or is dropped and
counted where ``data.partial`` is true.
"""

import re
from pathlib import Path

from vqlib.data.sources import Source, SourceGoneError, place_of
from vqlib.data.sources.digests import digest_of_list
from vqlib.data.sources.listing import some
from vqlib.data.sources.trees import open_tree
from vqlib.errors import DataError
from vqlib.params import Data, nearest
from vqlib.progress import Say

IMAGE = re.compile(r"(train|val)/([^/]+)/([^/]+\.(?i:jpe?g|png))")


def find(data: Data, root: Path, say: Say) -> Source:
    """List the folder or zip at ``data.path``."""
    path = place_of(data, root)
    if not path.exists():
        raise SourceGoneError(f"{path} is missing: data.path must name a folder, or a zip, with train/<class>/ in it")
    tree = open_tree(path, inside="train/", say=say)
    items, strange = {"train": [], "val": []}, []
    for file in sorted(file for file in tree.sizes if file.startswith(("train/", "val/"))):
        if match := IMAGE.fullmatch(file):
            split, of_class, name = match.groups()
            items[split].append(tree.item(of_class, name, file))
        else:
            strange.append(file)
    if strange:
        raise DataError(
            f"{path}: {len(strange):,} files do not belong there, the first is {strange[0]}; train/ and val/ may "
            "hold <class>/<name> alone, with one of the endings .jpg, .jpeg and .png"
        )
    for split, found in items.items():
        some(found, path, f"{split}/<class>/<name>.jpg")
    classes = sorted({item.wnid for item in items["train"]})
    if unknown := sorted({item.wnid for item in items["val"]} - set(classes)):
        raise DataError(f"{path}: val/ has the class {unknown[0]}, which train/ has not{nearest(unknown[0], classes)}")
    by_class = {split: sorted(found, key=lambda item: (item.wnid, item.name)) for split, found in items.items()}
    splits = {"train": by_class["train"], "test": by_class["val"]}
    return Source(classes, splits, tree.read_place, whole=not data.partial, lists=digest_of_list(tree.digests))
