"""Small made-up Tiny ImageNet trees, and what else the tests of the data share."""

import io
import os
import signal
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from vqlib.params import Data

WNIDS = ("n00000003", "n00000001", "n00000002")  # in wnids.txt they are in no order


def picture(seed: int, width: int = 24, height: int = 16) -> Image.Image:
    """Smooth colours and some noise; no two seeds alike."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((width, height))
    return Image.fromarray(np.clip(np.asarray(coarse) + draw.integers(-9, 10, (height, width, 3)), 0, 255).astype("u1"))


def jpeg(seed: int, **options) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def tiny_files(train: int = 6, test: int = 2) -> dict[str, bytes]:
    """A Tiny ImageNet of three classes, as names and contents."""
    files = {"wnids.txt": "\n".join(WNIDS).encode(), "test/images/test_0.JPEG": b"not looked at"}
    annotations = []
    for number, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"not looked at"
        for n in range(train):
            files[f"train/{wnid}/images/{wnid}_{n}.JPEG"] = jpeg(100 * number + n)
        for n in range(test):
            name = f"val_{3 * n + number}.JPEG"
            files[f"val/images/{name}"] = jpeg(5000 + 100 * number + n)
            annotations.append(f"{name}\t{wnid}\t0\t0\t23\t15\n")
    return files | {"val/val_annotations.txt": "".join(annotations).encode()}


def write_folder(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(files: dict[str, bytes], path: Path, top: str = "tiny-imagenet-200/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(top + name, content)
    return path


def tiny(path: Path, **options) -> Data:
    return Data(source="tiny_imagenet", path=str(path), **{"image_size": 8, "validation_every": 3} | options)


def photos(**options) -> Data:
    """Three chunks of training images and one each of the others, in half a second."""
    return Data(source="photos", **{"image_size": 8, "limit": 2100} | options)


def die(place) -> bytes:
    """A ``Source.read`` that ends its process."""
    os._exit(1)


def contents(folder: Path) -> dict[str, bytes]:
    """All that counts in a prepared folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".u8", ".npy", ".json")}


def killed(preparation, call: str, number: int, when: str) -> None:
    """Run ``preparation`` in a child that kills itself at the numbered call of ``os.<call>``."""
    child = os.fork()
    if child == 0:
        original, calls = getattr(os, call), []

        def kill_at(*arguments):
            calls.append(1)
            if len(calls) != number:
                return original(*arguments)
            if when == "half":
                original(arguments[0], arguments[1][: len(arguments[1]) // 2])
            elif when == "after":
                original(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, call, kill_at)
        try:
            preparation()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "the point was never reached"
