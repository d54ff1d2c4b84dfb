"""Full disks, file-size limits and read-only folders: one line, nothing good lost, and the work goes on afterwards."""

import contextlib
import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from vqlib.data import prepare, verify
from vqlib.errors import StorageError
from vqlib.params import ROOT

sys.path.insert(0, str(ROOT / "tests" / "data"))
from made_up import contents, photos

pytestmark = pytest.mark.faults
ARRAYS = (2100 + 922 + 568) * 8 * 8 * 3  # bytes


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    prepare(photos(), folder, workers=1)
    return contents(folder)


@contextlib.contextmanager
def disk(folder: Path, size: int):
    """A file system of ``size`` bytes."""
    folder.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if mounting.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path, leave: int) -> None:
    """Use up what is free, but for ``leave`` bytes."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filler").write_bytes(bytes(max(free - leave, 0)))


def one_line(message: str) -> str:
    assert "\n" not in message and "Traceback" not in message
    return message


def test_too_small_a_disk_is_refused_at_preflight(attempt, tmp_path):
    with disk(tmp_path / "disk", 2**19) as small, attempt("prepare", "disk too small, at preflight") as seen:
        with pytest.raises(StorageError, match=r"more bytes are needed.*free some space") as caught:
            prepare(photos(), small / "out")
        one_line(str(caught.value))
        assert not list((small / "out").glob("*.u8*"))
        seen("one line, nothing written")


@pytest.mark.parametrize("leave", [0, 4096, 16_384, 65_536])
@pytest.mark.parametrize("at", ["the first chunk", "the last chunk"])
def test_disk_that_fills_up_on_the_way(at, leave, whole, attempt, tmp_path):
    """From the first chunk on there is no room for the journal, from the last on none for labels or manifest."""
    with disk(tmp_path / "disk", 2**21) as small, attempt("prepare", f"disk full from {at} on") as seen:
        said = []

        def say(line: str) -> None:
            said.append(line)
            now = line.startswith("prepared") if at == "the last chunk" else len(said) == 1
            if now and not (small / "filler").exists():
                fill(small, leave + (ARRAYS if at == "the first chunk" else 0))

        try:
            prepare(photos(), small / "out", progress=say)
        except StorageError as error:
            assert "free some space" in one_line(str(error))
            assert not (small / "out" / "manifest.json").exists()
            seen("one line, and the same bytes after space was freed")
        else:
            assert leave > 0  # it was just enough
            seen("it was just enough")
        (small / "filler").unlink()
        prepare(photos(), small / "out")
        assert contents(small / "out") == whole


LIMITED = """
import resource, sys
from made_up import photos
from vqlib.data import __main__ as cli, prepare
cli.prepare = lambda *_: prepare(photos(), sys.argv[1], workers=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
sys.exit(cli.main(["prepare", "sample"]))
"""


@pytest.mark.parametrize("limit", [0, 100, 2000, 100_000, 300_000])
def test_file_size_limit(limit, whole, attempt, tmp_path):
    """Of 0 no lock can be written; of 2,000 no journal line; of 100,000 and 300,000 no array."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "data")])}
    command = [sys.executable, "-B", "-c", LIMITED, tmp_path / "out", str(limit)]
    with attempt("prepare", "file-size limit") as seen:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 2 and "too large" in one_line(result.stderr.strip())
        prepare(photos(), tmp_path / "out")
        assert contents(tmp_path / "out") == whole
        seen("one line, and the same bytes without the limit")


def test_read_only_folder(whole, attempt, tmp_path):
    with disk(tmp_path / "disk", 2**22) as small:
        prepare(photos(), small / "done")
        (small / "new").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        for name in ("new", "not there", "done"):
            with attempt("prepare", "read-only folder") as seen:
                with pytest.raises(StorageError, match="Read-only file system") as caught:
                    prepare(photos(), small / name)
                one_line(str(caught.value))
                seen("one line")
        with attempt("prepare", "read-only folder") as seen:
            assert verify(small / "done") and contents(small / "done") == whole
            seen("good data untouched, and can be verified")


@pytest.mark.parametrize("seed", range(20))
def test_a_write_that_fails_anywhere(seed, whole, attempt, tmp_path):
    """ENOSPC from a random call of the file system, at every stage from allocation to the manifest's rename."""
    draw = random.Random(seed)
    call = draw.choice(["posix_fallocate", "pwrite", "fdatasync", "write", "fsync", "replace"])
    original, left = getattr(os, call), draw.randint(0, {"pwrite": 3500, "posix_fallocate": 2}.get(call, 4))

    def fail_in_time(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    with attempt("prepare", "ENOSPC from a random call") as seen:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError, match="free some space") as caught:
            patch.setattr(os, call, fail_in_time)
            prepare(photos(), tmp_path)
        one_line(str(caught.value))
        prepare(photos(), tmp_path)
        assert contents(tmp_path) == whole
        seen("one line, and the same bytes afterwards")
