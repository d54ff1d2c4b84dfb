"""A disk that is full or read-only, wherever a training writes: one line, nothing lost, and it goes on afterwards."""

import contextlib
import hashlib
import os
import resource
import subprocess
from functools import partial
from pathlib import Path

import pytest
from training_trials import EVERY, call, make_root, one_line, outcome, states, train

WRITES = ["step 6", "step 12", "step 18", "step 24", "step 30", "step 36", "model.safetensors", "vq-0.csv", "the end"]
CHOSEN = ("step 18", "vq-0.csv")


def fill(disk: Path) -> None:
    handle = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    for size in (2**16, 2**12, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(handle, bytes(size))
    os.close(handle)


def forbid_large_files(_: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))


def fail_at_write(number: int, fault, root: Path) -> None:
    """Arm ``fault(root)`` before the numbered file is opened for an atomic write, or else before the end."""
    from vqlib import checkpoints, files

    calls, forget = [], checkpoints.forget

    def opening(path, mode):
        if mode == "wb":
            calls.append(path)
            if len(calls) == number:
                fault(root)
        return open(path, mode)

    def forgetting(folder):
        if len(calls) < number:
            fault(root)
        forget(folder)

    files.open, checkpoints.forget = opening, forgetting


@pytest.fixture
def mounted(request):
    """``mounted(folder)`` makes the folder a small disk of its own; ``mounted(folder, "ro")`` makes it read-only."""

    def mount(folder: Path, remount: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        options = f"remount,{remount}" if remount else "size=8m"
        command = ["mount", "-t", "tmpfs", "-o", options, "vqlib-test", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no program mount here")
        if done.returncode:
            pytest.skip("no right to mount a small disk here")
        if not remount:
            request.addfinalizer(lambda: subprocess.run(["umount", "-l", folder], check=True))

    return mount


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, bytes]:
    root = make_root(tmp_path_factory.mktemp("uninterrupted") / "root")
    assert call(train, root).code == 0
    return outcome(root)


def good_states(root: Path) -> list[int]:
    """Steps of the checkpoints. Each has the bytes that its name says, and nothing unfinished lies beside them."""
    found = states(root)
    assert all(path.stem[10:] == hashlib.sha256(content).hexdigest()[:32] for path, content in found.items())
    assert not [path for path in root.rglob("*.tmp") if "vqlib" not in path.parts]
    return [int(path.name[:9]) for path in found]


def kept_before(number: int) -> list[int]:
    """Steps of the checkpoints that are kept when the numbered write fails."""
    return [EVERY * n for n in range(1, min(number, 7))][-3:]


def goes_on(root: Path, uninterrupted: dict[str, bytes], saved: int) -> None:
    ended = call(train, root)
    assert ended.code == 0, ended
    assert saved == 0 or f"going on after step {saved}" in ended.errors
    assert outcome(root) == uninterrupted


def some(write: str):
    return pytest.param(write, marks=() if write in CHOSEN else pytest.mark.faults)


@pytest.mark.parametrize("write", [some(write) for write in WRITES])
def test_a_full_disk(attempt, mounted, uninterrupted, tmp_path, write):
    number = WRITES.index(write) + 1
    with attempt("training", "full disk at each checkpoint, model, history, end") as seen:
        mounted(tmp_path / "disk")
        root = make_root(tmp_path / "disk" / "root")
        line = one_line(call(train, root, "vq", 1e-3, partial(fail_at_write, number, fill, root)))
        assert str(root) in line
        assert "No space left on device; free some space and start again" in line
        assert good_states(root) == kept_before(number)
        (root / "filler").unlink()
        goes_on(root, uninterrupted, kept_before(number)[-1] if number > 1 else 0)
        seen("one line, checkpoints untouched, went on after space was freed, same bytes")


@pytest.mark.parametrize("write", [some(write) for write in WRITES])
def test_a_limit_on_the_size_of_files(attempt, uninterrupted, tmp_path, write):
    number = WRITES.index(write) + 1
    root = make_root(tmp_path / "root")
    with attempt("training", "file-size limit at each checkpoint, model, history, end") as seen:
        line = one_line(call(train, root, "vq", 1e-3, partial(fail_at_write, number, forbid_large_files, root)))
        assert str(root) in line
        assert "File too large; free some space and start again" in line
        assert good_states(root) == kept_before(number)
        goes_on(root, uninterrupted, kept_before(number)[-1] if number > 1 else 0)
        seen("one line, checkpoints untouched, went on without the limit, same bytes")


@pytest.mark.faults
def test_a_disk_that_is_full_before_the_start(attempt, mounted, uninterrupted, tmp_path):
    with attempt("training", "full disk before the start") as seen:
        mounted(tmp_path / "disk")
        root = make_root(tmp_path / "disk" / "root")
        fill(root)
        assert "No space left on device" in one_line(call(train, root))
        (root / "filler").unlink()
        goes_on(root, uninterrupted, 0)
        seen("one line, went on after space was freed, same bytes")


@pytest.mark.parametrize("place", ["results", *(pytest.param(p, marks=pytest.mark.faults) for p in (
    "runs", "checkpoints", "runs/smoke/vq-0", "."))])  # fmt: skip
def test_a_read_only_folder(attempt, mounted, uninterrupted, tmp_path, place):
    with attempt("training", "read-only folder: runs, checkpoints, results, all") as seen:
        if place == ".":
            mounted(tmp_path / "root")
        root = make_root(tmp_path / "root")
        if place != ".":
            mounted(root / place)
        mounted(root / place, "ro")
        line = one_line(call(train, root))
        assert str(root / place) in line
        assert "Read-only file system; make it readable and writable and start again" in line
        saved = good_states(root)[-1:] or [0]
        assert saved == ([36] if place == "results" else [0])
        mounted(root / place, "rw")
        goes_on(root, uninterrupted, *saved)
        seen("one line, went on when it could be written, same bytes")
