"""The prepared array, opened. Training depends on this file alone of the package, so it changes seldom.

A prepared folder holds ``manifest.json`` and, per split, ``<split>.u8`` (uint8, N x H x W x 3, nothing else) and
``<split>.labels.npy`` (int64). The manifest gives a sha256 for every ``CHUNK`` images, one for the labels, and, as its
last entry, one over all of its own bytes before it, which names the prepared data.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqlib.errors import DataError

FORMAT = 1  # of the prepared folder
CHUNK = 1024  # images under one sha256
SPLITS = ("train", "validation", "test")
SAMPLED_CHUNKS = 3  # checked at each opening; `python -m vqlib.data verify` checks all


@dataclass(frozen=True)
class Split:
    """One split of a prepared data set."""

    name: str  # train, validation or test
    images: np.ndarray  # (N, H, W, 3) uint8, read-only, mapped from the file
    labels: np.ndarray  # (N,) int64, indices into classes
    classes: list[str]  # sorted
    digest: str  # of the whole prepared data set, all splits


def open_split(folder: Path, name: str, image_size: int | None = None) -> Split:
    """Open the split ``name`` of a prepared folder; exact size, labels and a few random chunks are checked.

    Raises:
        DataError: nothing is prepared there, it is damaged, or its images are not ``image_size`` pixels wide.
    """
    folder = Path(folder)
    if name not in SPLITS:
        raise DataError(f"split {name!r} is not known; it may be one of {', '.join(SPLITS)}")
    manifest = read_manifest(folder)
    if image_size not in (None, manifest["image_size"]):
        raise DataError(
            f"{folder} holds images of {manifest['image_size']} px, asked for were {image_size} px; "
            "delete the folder and prepare again, or set data.image_size back"
        )
    images, digests = map_images(folder, name, manifest), manifest["splits"][name]["chunks"]
    for number in random.Random().sample(range(len(digests)), min(SAMPLED_CHUNKS, len(digests))):
        if chunk_digest(images, number) != digests[number]:
            raise DataError(
                f"{folder / name}.u8 is damaged in chunk {number}; "
                f"`python -m vqlib.data verify {folder}` lists all damage"
            )
    return Split(name, images, read_labels(folder, name, manifest), manifest["classes"], manifest["digest"])


def read_manifest(folder: Path) -> dict:
    """The manifest of a prepared folder, once its own digest has been found right.

    Raises:
        DataError: it is missing, damaged or of another format.
    """
    path = Path(folder) / "manifest.json"
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} is missing: run the prepare stage first (`dvc repro`, or "
            f"`python -m vqlib.data prepare {path.parent.name}`)"
        ) from None
    if seal(raw.rpartition(b',\n "digest": "')[0]) != raw:
        raise DataError(
            f"{path} is damaged: its digest does not fit; delete it and prepare again, "
            "which makes anew only what is damaged"
        )
    manifest = json.loads(raw)
    if manifest["format"] != FORMAT:
        raise DataError(
            f"{path} is of format {manifest['format']}, this program reads {FORMAT}; "
            f"delete {path.parent} and prepare again"
        )
    return manifest


def seal(body: bytes) -> bytes:
    """The manifest's bytes: ``body``, an object without its closing brace, and the digest of those bytes."""
    return body + b',\n "digest": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def map_images(folder: Path, name: str, manifest: dict) -> np.ndarray:
    """The images of a split as a read-only map (N, H, W, 3) of a file whose size is exactly right."""
    path, size = folder / f"{name}.u8", manifest["image_size"]
    shape = (manifest["splits"][name]["count"], size, size, 3)
    expected, found = int(np.prod(shape)), path.stat().st_size if path.is_file() else None
    if found != expected:
        state = "is missing" if found is None else f"has {found:,} bytes"
        raise DataError(
            f"{path} {state}, {expected:,} bytes belong there; delete {folder / 'manifest.json'} and prepare again"
        )
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def read_labels(folder: Path, name: str, manifest: dict) -> np.ndarray:
    """The labels of a split, int64 (N,), once their digest has been found right."""
    path = folder / f"{name}.labels.npy"
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        labels = None
    if labels is None or labels_digest(labels) != manifest["splits"][name]["labels"]:
        raise DataError(f"{path} is missing or damaged; delete {folder / 'manifest.json'} and prepare again")
    return labels


def chunk_digest(images: np.ndarray, number: int) -> str:
    """sha256 over the images ``number * CHUNK`` and following."""
    return hashlib.sha256(images[number * CHUNK : (number + 1) * CHUNK]).hexdigest()


def labels_digest(labels: np.ndarray) -> str:
    """sha256 over the labels as little-endian int64."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
