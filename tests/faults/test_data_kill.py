"""kill -9 of prepare at random: the next start makes the same bytes, and loses one chunk at most."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vqlib.data import prepare
from vqlib.data.reader import CHUNK
from vqlib.params import ROOT

sys.path.insert(0, str(ROOT / "tests" / "data"))
from made_up import contents, killed, photos

pytestmark = pytest.mark.faults
CALLS = ("posix_fallocate", "pwrite", "fdatasync", "write", "replace", "fsync", "ftruncate")
WORKERS = "import sys; from made_up import *; from vqlib.data import prepare; prepare(photos(), sys.argv[1], workers=2)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    prepare(photos(), folder, workers=1)
    return contents(folder)


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> dict[str, int]:
    """How often an uninterrupted preparation makes each call."""
    counts = dict.fromkeys(CALLS, 0)
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counting(getattr(os, name), name, counts))
        prepare(photos(), tmp_path_factory.mktemp("counted"), workers=1)
    return counts


def counting(original, name: str, counts: dict[str, int]):
    def call(*arguments):
        counts[name] += 1
        return original(*arguments)

    return call


@pytest.mark.parametrize("seed", range(60))
def test_killed_at_a_random_call(seed, whole, calls, attempt, tmp_path):
    draw = random.Random(seed)
    name = draw.choice(CALLS)
    with attempt("prepare", "kill -9 at a random system call, then resumed") as seen:
        killed(
            lambda: prepare(photos(), tmp_path), name, draw.randint(1, calls[name]), draw.choice(["before", "after"])
        )
        journalled = (
            (tmp_path / "journal.jsonl").read_bytes().count(b"\n") if (tmp_path / "journal.jsonl").exists() else 0
        )
        said = []
        prepare(photos(), tmp_path, progress=said.append)
        assert contents(tmp_path) == whole
        if again := [line for line in said if line.startswith("prepared")]:
            made = int(again[-1].split("/")[1].split()[0].replace(",", ""))
            assert made <= 2100 + 922 + 568 - max(journalled - 1 - 2, 0) * CHUNK  # 2 of the 5 chunks are not full
        seen("same bytes")


@pytest.mark.parametrize("seed", range(10))
def test_killed_with_its_workers_at_a_random_moment(seed, whole, attempt, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "data")])}
    with attempt("prepare", "kill -9 of two workers' parent at a random moment, then resumed") as seen:
        with subprocess.Popen([sys.executable, "-c", WORKERS, tmp_path], env=environment) as process:
            deadline = time.monotonic() + 60
            while not (Path(tmp_path) / "journal.jsonl").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(random.Random(seed).uniform(0, 2.5))
            process.kill()
        prepare(photos(), tmp_path)
        assert contents(tmp_path) == whole
        seen("same bytes")
