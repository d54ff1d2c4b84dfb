"""Hostile archives and pickles, each in its own process: little memory and time, nothing written, no code run."""

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vqlib.params import ROOT

sys.path.insert(0, str(ROOT / "tests" / "data"))
from made_up import tiny_files, write_folder, write_zip
from made_up_imagenet import tar_of, write_archives
from test_hostile import HOSTILE, Harm, bombs, write_bomb

pytestmark = pytest.mark.faults
MEMORY = 200  # MB above the start
TIME = 5  # seconds of the process's own
RESOLVE = """
import resource, sys, time
from pathlib import Path
from vqlib.data.sources import cifar10, imagenet, resolve, tiny_imagenet
from vqlib.errors import DataError
from vqlib.params import Data
from PIL import Image
started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = Data(source=sys.argv[1], path=sys.argv[2], image_size=8, partial=True)
try:
    resolve(data, Path(sys.argv[3]))
    print("passed")
except DataError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory, time.process_time() - started)
"""


def refuse(source: str, path: Path, tmp_path: Path) -> str:
    """Resolve it in a process of its own, and return the line with which it was refused."""
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    command = [sys.executable, "-B", "-c", RESOLVE, source, str(path), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    line, measured = result.stdout.splitlines()
    memory, seconds = map(float, measured.split())
    assert memory / 1024 < MEMORY and seconds < TIME
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    return line


@pytest.mark.parametrize("case", HOSTILE)
def test_tars(case, attempt, tmp_path):
    content, message = HOSTILE[case]
    path = write_archives(tmp_path / "raw")
    (path / "ILSVRC2012_img_train.tar").write_bytes(tar_of({"n00000001.tar": content}))
    with attempt("hostile", f"tar: {case}") as seen:
        assert message in refuse("imagenet", path, tmp_path)
        seen("refused, nothing written")


BOMBS = bombs(2**30, 60 * 2**20)


@pytest.mark.parametrize("case", BOMBS)
def test_bombs(case, attempt, tmp_path):
    source, files, message = BOMBS[case]
    assert sum(map(len, files.values())) < 5 * 2**20
    path = write_bomb(source, files, tmp_path / "raw")
    with attempt("hostile", f"bomb: {case}") as seen:
        assert message in refuse(source, path, tmp_path)
        seen("refused, nothing written")


def lying_zip(path: Path) -> Path:
    """Members that say that they are small."""
    write_zip(tiny_files() | {"val/val_annotations.txt": bytes(2**28)}, path)
    path.write_bytes(path.read_bytes().replace((2**28).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    return path


def bomb_zip(path: Path) -> Path:
    return write_zip(tiny_files() | {"train/n00000001/images/n00000001_0.JPEG": bytes(2**28)}, path)


def overlapping_zip(path: Path) -> Path:
    """A thousand entries that share one member of 60 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/n00000001/images/n00000001_0.JPEG", bytes(60 * 2**20))
        first = archive.infolist()[0]
        for number in range(1, 1000):
            copy = zipfile.ZipInfo(f"train/n00000001/images/n00000001_{number}.JPEG")
            for name in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(copy, name, getattr(first, name))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    return path


@pytest.mark.parametrize("make", [lying_zip, bomb_zip, overlapping_zip])
def test_zip_bombs(make, attempt, tmp_path):
    path = make(tmp_path / "tiny.zip")
    with attempt("hostile", f"zip: {make.__name__.replace('_', ' ')}") as seen:
        assert str(path) in refuse("tiny_imagenet", path, tmp_path)
        seen("refused, nothing written")


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch"])
def test_pickles(name, attempt, tmp_path):
    batches = {
        f"cifar-10-batches-py/{other}": b"x" for other in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
    }
    batches[f"cifar-10-batches-py/{name}"] = pickle.dumps(Harm(tmp_path / "harmed"))
    path = write_folder(batches, tmp_path / "raw")
    with attempt("hostile", "pickle in CIFAR-10's place") as seen:
        assert "is not that of the original, so it is not read" in refuse("cifar10", path, tmp_path)
        assert not (tmp_path / "harmed").exists()
        seen("refused, no code run")
