"""kill -9 at every step of writing: the next start makes the same bytes as if nothing had happened."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_up import contents, jpeg, killed, photos, tiny, tiny_files, write_folder

from vqlib.data import prepare
from vqlib.data.journal import Journal
from vqlib.params import ROOT

# The calls of one preparation, in this order: 3 x posix_fallocate; per chunk many x pwrite, fdatasync of the chunk,
# write and fdatasync of its journal line; per split replace of the array, then replace of the labels; the manifest's.
POINTS = [
    *(("posix_fallocate", 1, when) for when in ("before", "after")),
    *(("pwrite", n, "before") for n in (1, 700, 3000)),
    *(("fdatasync", n, "after") for n in (1, 2, 3)),
    *(("write", n, when) for n in (1, 3) for when in ("before", "half", "after")),
    *(("replace", n, when) for n in (1, 2, 4, 7) for when in ("before", "after")),
]


@pytest.mark.parametrize(("call", "number", "when"), POINTS)
def test_killed_and_resumed_is_the_same_to_the_bit(prepared_once, tmp_path, call, number, when):
    killed(lambda: prepare(photos(), tmp_path), call, number, when)
    prepare(photos(), tmp_path)
    assert contents(tmp_path) == contents(prepared_once)
    left = {path.name for path in tmp_path.iterdir()} - set(contents(tmp_path))
    assert left == {".lock", "journal.jsonl"}


def test_chunks_that_were_done_are_not_made_again(prepared_once, tmp_path):
    killed(lambda: prepare(photos(), tmp_path), "fdatasync", 8, "before")  # header, 3 chunks and their lines before
    said = []
    prepare(photos(), tmp_path, progress=said.append)
    assert f"prepared: {3590 - 2100:,}/{3590 - 2100:,} images (100%)" in said[-1]


def test_killed_twice_with_bad_images(tmp_path):
    files = tiny_files(train=400) | {"train/n00000002/images/n00000002_7.JPEG": jpeg(1)[:-50]}
    data = tiny(write_folder(files, tmp_path / "tree"), validation_every=100)
    prepare(data, tmp_path / "whole")
    killed(lambda: prepare(data, tmp_path / "out"), "write", 3, "after")
    killed(lambda: prepare(data, tmp_path / "out"), "pwrite", 900, "before")  # in the second round
    prepare(data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_workers_end_with_their_parent(prepared_once, tmp_path):
    code = (
        "import sys; from made_up import *; from vqlib.data import prepare; prepare(photos(), sys.argv[1], workers=2)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.path.dirname(__file__)])}
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], env=environment) as process:
        journal = tmp_path / "journal.jsonl"
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    wait_until(lambda: not any(_is_running(worker) for worker in workers))
    prepare(photos(), tmp_path)
    assert contents(tmp_path) == contents(prepared_once)


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_damaged_lines_of_the_journal_count_as_never_written(prepared, prepared_once):
    (prepared / "manifest.json").unlink()
    path = prepared / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"job": 1', b'"job": 7')
    path.write_bytes(b"".join(lines)[:-20])
    journal = Journal(path, {})
    assert sorted(journal.done) == [("train", 0), ("train", 2), ("validation", 0)]
    journal.close()
    prepare(photos(), prepared)
    assert contents(prepared) == contents(prepared_once)
