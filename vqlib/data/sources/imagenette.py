"""Imagenette: ten easy classes of ImageNet, as torchvision downloads and extracts it."""

from pathlib import Path

from vqlib.data.sources import Source, SourceGoneError, place_of
from vqlib.data.sources.listing import Expected, whole_or_partial
from vqlib.data.sources.wnid_tree import list_tree
from vqlib.errors import DataError
from vqlib.params import Data
from vqlib.progress import Say

IMAGENETTE = Expected("Imagenette", classes=10, train=9_469, test=3_925, test_per_class=None)
SIZES = {"imagenette2": "full", "imagenette2-320": "320px", "imagenette2-160": "160px"}  # folder: torchvision's word
TRAIN_NAME = r"(?:\1_\d+|ILSVRC2012_val_\d{8})\.JPEG"  # it was split anew


def find(data: Data, root: Path, say: Say) -> Source:
    """List the folder at ``data.path``, named as in ``SIZES``; ``data.download`` lets it be fetched."""
    folder = place_of(data, root)
    if folder.name not in SIZES:
        raise DataError(f"{folder}: data.path must end in one of {', '.join(SIZES)}, as torchvision names the folder")
    if not folder.is_dir():
        if not data.download:
            raise SourceGoneError(
                f"{folder} is missing: extract {folder.name}.tgz there, or set data.download to true to let "
                "torchvision download it from https://s3.amazonaws.com/fast-ai-imageclas"
            )
        _download(folder, say)
    listed = list_tree(folder, folder, TRAIN_NAME, data.partial, say)
    return whole_or_partial(listed, IMAGENETTE, data.partial, folder)


def _download(folder: Path, say: Say) -> None:
    from torchvision.datasets import Imagenette  # imported here, since torch takes seconds

    say(f"torchvision downloads Imagenette ({SIZES[folder.name]}) into {folder.parent} and extracts it there")
    try:
        Imagenette(folder.parent, size=SIZES[folder.name], download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(f"{folder}: the download failed ({str(error).splitlines()[0]}); start again, "
                        "or get the archive by other means and extract it there") from None  # fmt: skip
