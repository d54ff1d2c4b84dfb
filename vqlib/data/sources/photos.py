"""The colour photographs that ship inside scikit-image's wheel, cut into square crops: no download, one class.

Taken are all of its everyday colour photographs; its other colour pictures are drawings, or were taken through a
microscope, an ophthalmoscope or a space telescope. Split by photograph, both pictures of the stereo pair on one side.
The same crops are cut at every image size: they depend on the photographs alone.
"""

import functools
import importlib.util
from fractions import Fraction
from pathlib import Path

from PIL import Image

from vqlib.data.sources import Item, Source
from vqlib.errors import DataError
from vqlib.files import digest_of
from vqlib.params import Data
from vqlib.progress import Say

PHOTOGRAPHS = {
    "train": ("coffee.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg"),
    "validation": ("chelsea.png",),
    "test": ("astronaut.png",),
}
SCALES = (Fraction(1, 5), Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(3, 4))  # of the short side
STEPS = 4  # neighbouring crops are a fourth of their side apart


def find(data: Data, root: Path, say: Say) -> Source:
    """Every crop of every photograph; ``data.path`` is not used."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise DataError("data.source photos needs the package scikit-image, which holds the photographs; install it")
    folder = Path(spec.origin).parent / "data"
    items = {split: [crop for name in names for crop in _crops(folder / name)] for split, names in PHOTOGRAPHS.items()}
    return Source(["photo"], items, read)


def _crops(path: Path) -> list[Item]:
    if not path.is_file():
        raise DataError(
            f"{path} is missing: this scikit-image ships other photographs; install the version of the lock"
        )
    identity = digest_of(path.read_bytes())
    with Image.open(path) as picture:
        width, height = picture.size
    boxes = [box for scale in SCALES for box in grid(width, height, int(min(width, height) * scale))]
    return [Item("photo", f"{path.stem}_{n:04d}.png", identity, (str(path), box)) for n, box in enumerate(boxes)]


def grid(width: int, height: int, side: int) -> list[tuple[int, int, int, int]]:
    """Boxes (left, upper, right, lower) of squares that overlap by 3/4 and stay inside the picture."""
    step = side // STEPS
    return [
        (left, upper, left + side, upper + side)
        for upper in range(0, height - side + 1, step)
        for left in range(0, width - side + 1, step)
    ]


def read(place: tuple[str, tuple[int, int, int, int]]) -> Image.Image:
    path, box = place
    return _photograph(path).crop(box)


@functools.lru_cache(maxsize=8)
def _photograph(path: str) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
