"""How fast images are prepared and read: ``python -m benchmarks.data_prepare`` (full-size ImageNet JPEGs needed).

Prints a table and writes it to benchmarks/data_prepare.md. Times are processor seconds of this process, the best of
five rounds, the rivals taking turns, so that other work on the machine disturbs them little.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from vqlib.batches import Images
from vqlib.data.checks import npy_bytes
from vqlib.data.images import adm, decode, quick_adm, to_array, versions
from vqlib.data.reader import CHUNK, FORMAT, chunk_digest, labels_digest, open_split, seal
from vqlib.data.sources import resolve
from vqlib.files import json_bytes
from vqlib.params import ROOT, Data
from vqlib.training import batch_indices

SIZE = 128  # pixels
ROUNDS = 5
IMAGES = 1_281_167 + 50_000  # of ILSVRC2012
GIGABYTES = 144.5  # of its two archives
DISK = 0.15  # GB a second: a hard disk
TABLE = Path(__file__).with_suffix(".md")


def rival(picture: Image.Image) -> np.ndarray:
    """The same protocol as a loop over torchvision's ImageFolder has it: center_crop_arr of guided-diffusion."""
    while min(*picture.size) >= 2 * SIZE:
        picture = picture.resize(tuple(x // 2 for x in picture.size), resample=Image.BOX)
    scale = SIZE / min(*picture.size)
    array = np.array(picture.resize(tuple(round(x * scale) for x in picture.size), resample=Image.BICUBIC))
    top, left = (array.shape[0] - SIZE) // 2, (array.shape[1] - SIZE) // 2
    return array[top : top + SIZE, left : left + SIZE]


def per_second(images: int, works: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Images per second of processor time, best of ``ROUNDS``."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - start)
    return {name: images / seconds for name, seconds in best.items()}


def decoding(path: str, folder: Path) -> dict[str, float]:
    """Ours from the archives against ImageFolder from a tree of the same files; also checks that pixels are equal.

    ``ours`` is what prepare does for a large set, ``pillow`` what it does for a small one or without numba. ``start``
    are the seconds that ``ours`` takes once, for importing numba and for compiling, which later processes find done.
    """
    source = resolve(Data(source="imagenet", path=path, image_size=SIZE, partial=True), ROOT)
    items = sorted(item for of_split in source.items.values() for item in of_split)
    for item in items:
        (folder / item.wnid).mkdir(exist_ok=True)
        (folder / item.wnid / item.name).write_bytes(source.read(item.place))
    tree = ImageFolder(str(folder), transform=rival)
    os.environ["NUMBA_CACHE_DIR"] = str(folder.parent)  # nothing compiled lies there
    start = time.process_time()
    if quick_adm() is adm:
        raise SystemExit("numba is missing, or compiled code gives other bytes here: prepare uses Pillow alone")
    start = time.process_time() - start
    for item, (array, _) in zip(items, tree, strict=True):
        for quick in (True, False):
            assert np.array_equal(to_array(source.read(item.place), item.name, SIZE, "adm", quick)[0], array), item.key

    def prepare(quick: bool) -> None:
        for item in items:
            to_array(source.read(item.place), item.name, SIZE, "adm", quick)

    def decode_alone() -> None:
        for item in items:
            decode(source.read(item.place), item.name)

    def theirs() -> None:
        for index in range(len(tree)):
            tree[index]

    rivals = {"ours": partial(prepare, True), "pillow": partial(prepare, False), "theirs": theirs}
    return {"images": len(items), "start": start, **per_second(len(items), rivals | {"decoding": decode_alone})}


def reading(folder: Path, images: int = 8 * CHUNK, batch: int = 128) -> dict[str, float]:
    """Batches by seed and step as training takes them, pixels of a prepared array in the page cache; its digests.

    ``batches`` is the copy out of the map. ``floats`` adds what a network on the CPU is given, (B, 3, H, W) float32; a
    GPU makes these itself, from a quarter of the bytes.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)
    write_split(folder, pixels)
    split = open_split(folder, "train", SIZE)
    loader, steps = Images(split, torch.device("cpu")), images // batch
    some = batch_indices(3, images, batch, seed=0).numpy()
    assert np.array_equal(split.images[some], pixels[some])

    def batches() -> None:
        for step in range(steps):
            split.images[batch_indices(step, images, batch, seed=0).numpy()]

    def floats() -> None:
        for step in range(steps):
            loader.batch(batch_indices(step, images, batch, seed=0))

    def digests() -> None:
        for number in range(images // CHUNK):
            chunk_digest(split.images, number)

    return per_second(images, {"batches": batches, "floats": floats, "digests": digests})


def write_split(folder: Path, pixels: np.ndarray) -> None:
    """A prepared folder with a training split alone, so that the project's own reader opens it."""
    labels = np.zeros(len(pixels), np.int64)
    (folder / "train.u8").write_bytes(pixels.tobytes())
    (folder / "train.labels.npy").write_bytes(npy_bytes(labels))
    chunks = [chunk_digest(pixels, number) for number in range(-(-len(pixels) // CHUNK))]
    described = {"count": len(pixels), "labels": labels_digest(labels), "chunks": chunks}
    manifest = {"format": FORMAT, "image_size": SIZE, "classes": ["noise"], "splits": {"train": described}}
    (folder / "manifest.json").write_bytes(seal(json_bytes(manifest).removesuffix(b"\n}\n")))


def processor() -> str:
    """The processor's name, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(decoded: dict[str, float], read: dict[str, float]) -> str:
    rate = decoded["ours"]
    minutes = {cores: IMAGES / rate / cores / 60 for cores in (2, 16)}
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    rows = [
        (f"JPEG to {SIZE} px by adm, from the archives", f"{rate:,.0f} images/s/core"),
        ("ImageFolder and Pillow, the same protocol", f"{decoded['theirs']:,.0f} images/s/core"),
        ("ratio, all pixels equal", f"{rate / decoded['theirs']:.2f}"),
        ("ours where there is little to do, or no numba", f"{decoded['pillow']:,.0f} images/s/core"),
        ("decoding alone, by Pillow, which all of these do", f"{decoded['decoding']:,.0f} images/s/core"),
        ("importing numba and compiling, once", f"{decoded['start']:.1f} s"),
        (f"batches of 128 by seed and step from the array, {SIZE} px", f"{read['batches']:,.0f} images/s/core"),
        ("the same, as float32 in [-1, 1] on the CPU", f"{read['floats']:,.0f} images/s/core"),
        (f"sha256 of the array, {SIZE} px", f"{read['digests']:,.0f} images/s/core"),
        ("ILSVRC2012: decoding on 2 cores", f"{minutes[2]:.0f} minutes"),
        ("ILSVRC2012: decoding on 16 cores", f"{minutes[16]:.0f} minutes"),
        ("ILSVRC2012: reading 144.5 GB from a disk of 150 MB/s, once for md5, once for images",
         f"{2 * GIGABYTES / DISK / 60:.0f} minutes"),
        (f"ILSVRC2012: prepared at {SIZE} px", f"{IMAGES * SIZE**2 * 3 / 1e9:.1f} GB"),
    ]  # fmt: skip
    lines = [f"| {name} | {value} |" for name, value in rows]
    head = f"{decoded['images']} full-size JPEGs of ImageNet, {made_with}, {processor()}, one thread, processor time."
    return "\n".join(["# Preparing and reading images", "", head, "", "| | |", "|---|--:|", *lines]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", default="data/raw/imagenet", help="ImageNet or a sample of it, in any layout")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        (tree := Path(temporary) / "tree").mkdir()
        text = table(decoding(parser.parse_args().path, tree), reading(Path(temporary)))
    TABLE.write_text(text)
    print(text)
