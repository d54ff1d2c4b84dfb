"""A made-up ImageNet of three classes in every layout that the real one comes in."""

import functools
import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
from made_up import WNIDS, jpeg, write_folder
from pyarrow import parquet
from scipy.io import savemat

from vqlib.params import Data

IDS = {"n00000003": 1, "n00000001": 2, "n00000002": 3}  # ILSVRC2012_ID: not in the order of wnids
KAGGLE = "ILSVRC/Data/CLS-LOC/"


@functools.lru_cache
def train_images(per_class: int = 6) -> dict[str, bytes]:
    """``<wnid>/<wnid>_<n>.JPEG`` and contents."""
    return {f"{w}/{w}_{7 * n}.JPEG": jpeg(100 * c + n) for c, w in enumerate(WNIDS) for n in range(per_class)}


@functools.lru_cache
def val_images(per_class: int = 2) -> dict[str, tuple[str, bytes]]:
    """``ILSVRC2012_val_<n>.JPEG`` to its class and content."""
    number = range(1, 3 * per_class + 1)
    return {
        f"ILSVRC2012_val_{n:08d}.JPEG": (WNIDS[n * n % 3 if per_class > 2 else n % 3], jpeg(900 + n)) for n in number
    }


def imagenet(path: Path, **options) -> Data:
    values = {"image_size": 8, "validation_every": 3, "partial": True} | options
    return Data(source="imagenet", path=str(path), **values)


def add(archive: tarfile.TarFile, name: str, content: bytes, **header) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in header.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content))


def tar_of(files: dict[str, bytes], format: int = tarfile.GNU_FORMAT, **header) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in files.items():
            add(archive, name, content, **header)
    return buffer.getvalue()


def train_tar(images: dict[str, bytes], **options) -> bytes:
    classes: dict[str, dict[str, bytes]] = {}
    for key, content in images.items():
        wnid, name = key.split("/")
        classes.setdefault(wnid, {})[name] = content
    return tar_of({f"{wnid}.tar": tar_of(files, **options) for wnid, files in classes.items()}, **options)


def write_archives(folder: Path, labels: str = "wnids", train=None, val=None, **options) -> Path:
    """The two archives, and beside them the classes of the validation images in the form ``labels``."""
    val = val_images() if val is None else val
    files = {
        "ILSVRC2012_img_train.tar": train_tar(train_images() if train is None else train, **options),
        "ILSVRC2012_img_val.tar": tar_of({name: content for name, (_, content) in val.items()}, **options),
    }
    return write_folder(files | labels_as(labels, val), folder)


def labels_as(form: str, val: dict[str, tuple[str, bytes]]) -> dict[str, bytes]:
    wnids = {name: val[name][0] for name in sorted(val)}
    if form == "wnids":
        return {"ILSVRC2012_val_wnids.txt": "".join(f"{wnid}\n" for wnid in wnids.values()).encode()}
    if form == "solution":
        lines = (f"{name.removesuffix('.JPEG')},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n" for name, wnid in wnids.items())
        return {"LOC_val_solution.csv": ("ImageId,PredictionString\n" + "".join(lines)).encode()}
    devkit = {
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(
            f"{IDS[wnid]}\n" for wnid in wnids.values()
        ).encode(),
        "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat(),
        "ILSVRC2012_devkit_t12/readme.txt": b"not looked at",
    }
    return devkit if form == "devkit" else {"ILSVRC2012_devkit_t12.tar.gz": gzip.compress(tar_of(devkit))}


@functools.lru_cache
def meta_mat() -> bytes:
    """Synsets as in the devkit: leaves with IDs from 1, and inner nodes after them."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("children", "O"), ("wordnet_height", "O")]
    rows = [(float(number), wnid, f"word, {wnid}", [], 0.0) for wnid, number in IDS.items()]
    rows.append((4.0, "n09999999", "entité", [1.0, 2.0, 3.0], 9.0))
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)}, do_compression=True)
    return buffer.getvalue()


def tree_files(val_by_class: bool = True) -> dict[str, bytes]:
    files = {f"train/{key}": content for key, content in train_images().items()}
    for name, (wnid, content) in val_images().items():
        files[f"val/{wnid}/{name}" if val_by_class else f"val/{name}"] = content
    return files


def kaggle_files() -> dict[str, bytes]:
    files = {KAGGLE + name: content for name, content in tree_files(val_by_class=False).items()}
    return (
        files | labels_as("solution", val_images()) | {f"{KAGGLE}test/ILSVRC2012_test_00000001.JPEG": b"not looked at"}
    )


def write_parquet(folder: Path, shards: int = 2, rows: int = 4, order: int = 5) -> Path:
    """Rows as the ``datasets`` library writes them, in an order of no meaning."""
    labels = {wnid: number for number, wnid in enumerate(sorted(WNIDS))}
    train = [
        (f"{key.split('/')[1][:-5]}_{key[:9]}.JPEG", content, labels[key[:9]])
        for key, content in train_images().items()
    ]
    val = [(f"{name[:-5]}_{wnid}.JPEG", content, labels[wnid]) for name, (wnid, content) in val_images().items()]
    for split, images in (("train", train), ("validation", val)):
        images.sort(key=lambda image: (image[1][order * 20], image[0]))
        for shard in range(shards):
            path = folder / "data" / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            write_shard(path, images[shard::shards], rows)
    return folder


def write_shard(path: Path, images: list[tuple[str, bytes, int]], rows: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [{"bytes": content, "path": name} for name, content, _ in images]
    table = pyarrow.table({"image": pictures, "label": [label for *_, label in images]})
    parquet.write_table(table, path, row_group_size=rows)


LAYOUTS = {
    "archives": write_archives,
    "archives, devkit.tar.gz": functools.partial(write_archives, labels="devkit.tar.gz"),
    "archives, devkit": functools.partial(write_archives, labels="devkit"),
    "archives, PAX, dot": functools.partial(write_archives, format=tarfile.PAX_FORMAT, mtime=1.5),
    "tree": lambda folder: write_folder(tree_files(), folder),
    "tree, flat val": lambda folder: write_folder(tree_files(False) | labels_as("devkit", val_images()), folder),
    "Kaggle": lambda folder: write_folder(kaggle_files(), folder),
    "parquet": write_parquet,
    "parquet, other order": functools.partial(write_parquet, shards=3, rows=100, order=9),
}
