"""How much memory it takes to list as many images as ILSVRC2012 has: ``python -m benchmarks.data_memory``.

The list is made up, with names, sizes and places as the archives give them. It is all that grows with the set: chunks
are decoded one at a time in each worker, and written to their place.
"""

import resource
from pathlib import Path

from vqlib.data.sources import Item, carve_validation
from vqlib.data.sources.imagenet import ILSVRC2012
from vqlib.data.sources.listing import Listed, whole_or_partial
from vqlib.files import json_bytes


def made_up() -> Listed:
    """1,281,167 training and 50,000 validation images of 1,000 classes."""
    wnids = [f"n{1_440_764 + number:08d}" for number in range(ILSVRC2012.classes)]
    train, test, offset = [], [], 0
    for number in range(ILSVRC2012.train):
        wnid, size = wnids[number % len(wnids)], 90_000 + number % 40_000
        train.append(Item(wnid, f"{wnid}_{number}.JPEG", str(size), (0, offset, size)))
        offset += size
    for number in range(ILSVRC2012.test):
        size = 90_000 + number % 40_000
        name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        test.append(Item(wnids[number % len(wnids)], name, str(size), (1, number * 100_000, size)))
    return Listed(train, test, bytes)


def peak() -> float:
    """MB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    start = peak()
    source = whole_or_partial(made_up(), ILSVRC2012, False, Path("made up"))
    train, validation = carve_validation(source.items["train"], 25)
    manifest = json_bytes([item.name for item in train + validation + source.items["test"]])
    print(f"{peak():,.0f} MB at most, {start:,.0f} MB before; {len(manifest) / 1e6:,.0f} MB of names in the manifest")
