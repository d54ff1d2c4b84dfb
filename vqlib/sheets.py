"""Pictures of the data themselves: contact sheets, counts, one image under every resize protocol."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from vqlib.data import Split
from vqlib.data.images import PROTOCOLS, to_array
from vqlib.data.sources import Item, Source


def contact_sheet(splits: list[Split], columns: int = 12, rows: int = 2) -> Figure:
    """Up to ``rows`` times ``columns`` images of each split, evenly from its first to its last."""
    figure, axes = plt.subplots(
        len(splits), 1, figsize=(columns * 0.75, len(splits) * (rows * 0.75 + 0.3)), squeeze=False
    )
    for ax, split in zip(axes[:, 0], splits, strict=True):
        shown = split.images[_evenly(len(split.images), rows * columns)]
        blank = np.full((rows * columns - len(shown), *shown.shape[1:]), 255, np.uint8)
        shown = np.concatenate([shown, blank])
        tiles = shown.reshape(rows, columns, *shown.shape[1:])
        ax.imshow(tiles.swapaxes(1, 2).reshape(rows * shown.shape[1], columns * shown.shape[2], 3))
        ax.set_title(f"{split.name}: {len(split.images):,} images", loc="left")
        ax.set_axis_off()
    figure.tight_layout()
    return figure


def _evenly(count: int, most: int) -> np.ndarray:
    """Up to ``most`` of the positions 0 to ``count`` - 1, evenly spaced, each once."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def odd_files(splits: list[Split], manifest: dict, columns: int = 12) -> Figure:
    """The first ``columns`` images of each odd kind as they were converted, and how many there are of it."""
    odd = {split.name: manifest["splits"][split.name]["odd"] for split in splits}
    kinds = sorted({kind for of_split in odd.values() for kind in of_split})
    figure, axes = plt.subplots(
        max(1, len(kinds)), 1, figsize=(columns * 0.75, max(1, len(kinds)) * 1.05), squeeze=False, layout="constrained"
    )
    for ax in axes[:, 0]:
        ax.set_axis_off()
    if not kinds:
        axes[0, 0].set_title("no odd files", loc="left")
    for ax, kind in zip(axes[:, 0], kinds, strict=False):
        places = [(split, position) for split in splits for position in odd[split.name].get(kind, [])]
        shown = [split.images[position] for split, position in places[:columns]]
        shown += [np.full_like(shown[0], 255)] * (columns - len(shown))
        ax.imshow(np.concatenate(shown, axis=1))
        of_splits = ", ".join(f"{name} {len(found[kind]):,}" for name, found in odd.items() if kind in found)
        ax.set_title(f"{kind}: {len(places):,} ({of_splits})", loc="left")
    return figure


def class_counts(splits: list[Split]) -> Figure:
    """How many images every class has, the largest class first: one panel per split."""
    figure, axes = plt.subplots(1, len(splits), figsize=(3 * len(splits), 2.4), layout="constrained")
    for ax, split in zip(axes, splits, strict=True):
        counts = np.sort(np.bincount(split.labels, minlength=len(split.classes)))[::-1]
        ax.stairs(counts, fill=True, color=sns.color_palette("colorblind")[0])
        ax.set(title=split.name, xlabel="classes", ylabel="images of a class", xlim=(0, len(counts)), ylim=0)
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_major_locator().set_params(integer=True, nbins=5)
    return figure


def resized(source: Source, item: Item, image_size: int) -> dict[str, np.ndarray]:
    """One source image under every resize protocol, (S, S, 3) uint8 each."""
    content = source.read(item.place)
    return {name: to_array(content, item.name, image_size, name)[0] for name in PROTOCOLS}


def protocol_sheet(arrays: dict[str, np.ndarray]) -> Figure:
    """The arrays of ``resized`` side by side."""
    figure, axes = plt.subplots(1, len(arrays), figsize=(2.4 * len(arrays), 2.7), layout="constrained")
    for ax, (name, array) in zip(axes, arrays.items(), strict=True):
        ax.imshow(array, interpolation="nearest")
        ax.set_title(name)
        ax.set_axis_off()
    return figure


def blind_error(train: Split, test: Split, most: int = 10_000) -> float:
    """MSE on [-1, 1] of the average training image on the test images; of up to ``most`` images of each, evenly spaced.

    Images are read one at a time, so that a split may be larger than the memory.
    """
    chosen = _evenly(len(train.images), most)
    total = np.zeros(train.images.shape[1:], np.int64)
    for position in chosen:
        total += train.images[position]
    average = (total / len(chosen)).astype(np.float32)
    errors = [np.mean(((test.images[k] - average) / 127.5) ** 2) for k in _evenly(len(test.images), most)]
    return float(np.mean(errors, dtype=np.float64))
