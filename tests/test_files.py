"""Atomic writes, digests, locks."""

import errno
import os
import time

import pytest
from support import held_by_another

from vqlib import files
from vqlib.errors import BusyError, StorageError
from vqlib.files import digest_of, digest_of_files, exclusive, in_one_line, json_bytes, write_atomically


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"one", b"another"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, fails):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_way_is_named_and_not_the_temporary_file(tmp_path):
    (tmp_path / "drawn.png").mkdir()
    with pytest.raises(StorageError, match=r"^\S+/drawn\.png: Is a directory"), in_one_line(tmp_path):
        write_atomically(tmp_path / "drawn.png", b"content")
    assert os.listdir(tmp_path) == ["drawn.png"]


def test_the_new_content_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a)))
    write_atomically(tmp_path / "file", b"content")
    assert calls == ["fsync", "replace", "fsync"]  # file, rename, directory


def test_a_digest_of_files_sees_names_and_contents_but_neither_order_nor_place(tmp_path):
    for root in ("a", "b"):
        for name in ("x.py", "y.py"):
            write_atomically(tmp_path / root / name, name.encode())

    def digest(root: str, *names: str) -> str:
        return digest_of_files([tmp_path / root / name for name in names], tmp_path / root)

    assert digest("a", "x.py", "y.py") == digest("b", "y.py", "x.py")
    assert digest("a", "x.py") != digest("a", "y.py")
    before = digest("a", "x.py", "y.py")
    (tmp_path / "a" / "x.py").write_text("y.py")
    assert digest("a", "x.py", "y.py") != before


def test_json_keeps_the_order_and_refuses_what_json_does_not_know():
    assert json_bytes({"b": 1, "a": "é"}) == '{\n "b": 1,\n "a": "é"\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"x": float("nan")})
    assert digest_of(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_second_process_is_refused_at_once_with_the_pid_of_the_first(tmp_path):
    folder = tmp_path / "run"
    with held_by_another(folder) as first:
        began = time.monotonic()
        with pytest.raises(BusyError) as caught, exclusive(folder, "training vq-0"):
            pass
        assert time.monotonic() - began < 1
        message = str(caught.value)
        assert "\n" not in message
        assert str(folder) in message
        assert f"process {first.pid} is already training vq-0" in message
        first.kill()
        first.wait()
        with exclusive(folder, "training vq-0"):  # the lock ends with its process, however that ends
            assert (folder / ".lock").read_text() == str(os.getpid())


def test_a_lock_ends_with_its_block(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), exclusive(tmp_path, "testing"):
            raise RuntimeError
