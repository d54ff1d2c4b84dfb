"""The prepared array: the same from any layout, order and number of processes; bad images dropped; others refused."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from made_up import contents, die, jpeg, photos, tiny, tiny_files, write_folder, write_zip
from PIL import Image

from vqlib.data import open_split, prepare, verify, writer
from vqlib.data.images import to_array
from vqlib.data.sources import resolve
from vqlib.errors import BusyError, DataError, StorageError
from vqlib.params import ROOT, load_experiment, raw_path


def test_pixels_labels_and_names_are_those_of_the_source(tmp_path):
    files = tiny_files()
    manifest = prepare(tiny(write_zip(files, tmp_path / "tiny.zip"), resize="box_squash"), tmp_path / "out")
    for split, folder in (("train", "train/{0}/images/"), ("validation", "train/{0}/images/"), ("test", "val/images/")):
        opened = open_split(tmp_path / "out", split, image_size=8)
        assert opened.classes == ["n00000001", "n00000002", "n00000003"] and opened.digest == manifest["digest"]
        assert len(opened.images) == manifest["splits"][split]["count"] > 0
        for name, label, image in zip(manifest["splits"][split]["names"], opened.labels, opened.images, strict=True):
            content = files[folder.format(opened.classes[label]) + name]
            assert np.array_equal(image, to_array(content, name, 8, "box_squash")[0])
    annotations = dict(line.split("\t")[:2] for line in files["val/val_annotations.txt"].decode().splitlines())
    names = manifest["splits"]["test"]["names"]
    assert [annotations[name] for name in names] == [opened.classes[label] for label in opened.labels]


def test_zip_and_folder_give_the_same_bytes_whatever_their_order(tmp_path):
    files = tiny_files()
    prepare(tiny(write_zip(files, tmp_path / "tiny.zip")), tmp_path / "a")
    prepare(tiny(write_folder(dict(reversed(files.items())), tmp_path / "tree")), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_worker_processes_give_the_same_bytes(prepared_once, tmp_path):
    """From ``python -c``, where spawned processes find no file to import as __main__."""
    code = (
        "import sys; from made_up import *; from vqlib.data import prepare; prepare(photos(), sys.argv[1], workers=2)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.path.dirname(__file__)])}
    subprocess.run([sys.executable, "-c", code, tmp_path / "two"], check=True, env=environment, timeout=60)
    assert contents(tmp_path / "two") == contents(prepared_once)


def test_nothing_in_the_manifest_tells_of_place_or_time(prepared_once):
    manifest = json.loads((prepared_once / "manifest.json").read_bytes())
    assert set(manifest) == {
        *("format", "source", "image_size", "resize", "limit", "validation_every", "pillow", "libjpeg", "items"),
        *("classes", "splits", "dropped", "digest"),
    }
    assert str(prepared_once.parent) not in json.dumps(manifest) and "site-packages" not in json.dumps(manifest)


def test_bad_images_are_dropped_and_listed_and_nothing_takes_their_place(tmp_path):
    good = tiny_files()
    bad = {"train/n00000001/images/n00000001_1.JPEG": b"", "train/n00000003/images/n00000003_5.JPEG": jpeg(9)[:-60]}
    manifest = prepare(tiny(write_folder(good | bad, tmp_path / "bad")), tmp_path / "a")
    dropped = manifest["dropped"]["train"]
    assert list(dropped) == ["n00000001/n00000001_1.JPEG", "n00000003/n00000003_5.JPEG"]
    assert (
        dropped["n00000001/n00000001_1.JPEG"] == "empty file" and "truncated" in dropped["n00000003/n00000003_5.JPEG"]
    )
    whole = prepare(tiny(write_folder(good, tmp_path / "good")), tmp_path / "b")
    kept = [n for n, name in enumerate(whole["splits"]["train"]["names"]) if not any(name in key for key in dropped)]
    with_all, without = open_split(tmp_path / "b", "train"), open_split(tmp_path / "a", "train")
    assert len(kept) == len(with_all.images) - 2
    assert np.array_equal(with_all.images[kept], without.images)
    assert np.array_equal(with_all.labels[kept], without.labels)
    assert contents(tmp_path / "a")["test.u8"] == contents(tmp_path / "b")["test.u8"]


def test_a_split_without_a_readable_image_is_refused(tmp_path):
    files = {name: b"?" if name.startswith("val/images") else content for name, content in tiny_files().items()}
    with pytest.raises(DataError, match=r"no test image of 6 can be read .*not a JPEG or PNG"):
        prepare(tiny(write_folder(files, tmp_path / "tree")), tmp_path / "out")


def test_odd_files_are_found_in_the_array(tmp_path):
    files = tiny_files()
    Image.new("L", (20, 20), 77).save(tmp_path / "gray.jpg")
    files["val/images/val_3.JPEG"] = (tmp_path / "gray.jpg").read_bytes()
    manifest = prepare(tiny(write_folder(files, tmp_path / "tree")), tmp_path / "out")
    (position,) = manifest["splits"]["test"]["odd"].pop("grayscale")
    assert manifest["splits"]["test"]["names"][position] == "val_3.JPEG" and not manifest["splits"]["test"]["odd"]
    assert (open_split(tmp_path / "out", "test").images[position] == 77).all()


def test_the_same_again_checks_and_writes_nothing(prepared):
    before = {path.name: path.stat().st_mtime_ns for path in prepared.iterdir() if path.name != ".lock"}
    said = []
    assert prepare(photos(), prepared, progress=said.append) == verify(prepared)
    assert {path.name: path.stat().st_mtime_ns for path in prepared.iterdir() if path.name != ".lock"} == before
    assert said and all(line.startswith("verified") for line in said)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"image_size": 16}, "image size"), ({"resize": "box_squash"}, "resize"), ({"limit": 50}, "limit")],
)
def test_other_settings_than_those_of_the_folder_are_refused(prepared, change, named):
    before = contents(prepared)
    with pytest.raises(DataError, match=f"prepared data of another {named}.*delete the folder") as caught:
        prepare(photos(**change), prepared)
    assert str(next(iter(change.values()))) in str(caught.value) and "\n" not in str(caught.value)
    (prepared / "manifest.json").unlink()  # as DVC does before it runs a stage whose parameters changed
    with pytest.raises(DataError, match=f"prepared data of another {named}"):
        prepare(photos(**change), prepared)
    assert contents(prepared) == {name: content for name, content in before.items() if name != "manifest.json"}


def test_a_source_whose_files_changed_is_refused(tmp_path):
    files = tiny_files()
    prepare(tiny(write_folder(files, tmp_path / "tree")), tmp_path / "out")
    write_folder({"val/images/val_0.JPEG": jpeg(1) + b"more"}, tmp_path / "tree")
    with pytest.raises(DataError, match="source with other files"):
        prepare(tiny(tmp_path / "tree"), tmp_path / "out")


def test_without_manifest_only_what_is_damaged_is_made_again(prepared, monkeypatch):
    expected = contents(prepared)
    damaged = bytearray((prepared / "train.u8").read_bytes())
    damaged[1024 * 8 * 8 * 3 + 5] ^= 1  # chunk 1
    (prepared / "train.u8").write_bytes(damaged)
    with pytest.raises(DataError, match=r"train.u8 is damaged in chunk 1 .*delete .*manifest.json and prepare again"):
        prepare(photos(), prepared)
    (prepared / "manifest.json").unlink()
    said = []
    prepare(photos(), prepared, progress=said.append)
    assert contents(prepared) == expected
    assert "prepared: 1,024/1,024 images" in said[-1]


def test_the_source_may_go_when_all_is_prepared(tmp_path):
    path, said = write_folder(tiny_files(), tmp_path / "tiny"), []
    manifest = prepare(tiny(path), tmp_path / "out")
    path.rename(tmp_path / "gone")
    assert prepare(tiny(path), tmp_path / "out", progress=said.append) == manifest
    assert said[0].startswith("the source is gone, so the prepared images are checked against their manifest alone")
    with pytest.raises(DataError, match="prepared data of another limit"):
        prepare(tiny(path, limit=2), tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(DataError, match="is missing: put Tiny ImageNet there"):
        prepare(tiny(path), tmp_path / "out")


def test_a_dropped_image_is_tried_again(tmp_path):
    files, name = tiny_files(), "train/n00000001/images/n00000001_1.JPEG"
    whole = prepare(tiny(write_folder(files, tmp_path / "good")), tmp_path / "a")
    path = write_folder(files | {name: bytes(len(files[name]))}, tmp_path / "tiny")
    assert prepare(tiny(path), tmp_path / "out")["dropped"]["train"]
    write_folder({name: files[name]}, path)
    (tmp_path / "out" / "manifest.json").unlink()
    assert prepare(tiny(path), tmp_path / "out") == whole
    assert contents(tmp_path / "out") == contents(tmp_path / "a")


def test_a_list_of_digests_is_checked_whenever_it_comes(tmp_path):
    files = tiny_files()
    images = {name: content for name, content in files.items() if name.endswith(".JPEG")}
    path, said = write_folder(files, tmp_path / "tiny"), []
    manifest = prepare(tiny(path), tmp_path / "out")
    lines = {name: hashlib.sha256(content).hexdigest() + "  " + name for name, content in images.items()}
    (path / "SHA256SUMS").write_text("\n".join(lines.values()))
    for checked in (1, 0):
        said.clear()
        assert prepare(tiny(path), tmp_path / "out", progress=said.append) == manifest
        assert sum(line.startswith("checked against the list of digests: 24/24") for line in said) == checked
    wrong = lines | {"val/images/val_0.JPEG": "0" * 64 + "  val/images/val_0.JPEG"}
    (path / "SHA256SUMS").write_text("\n".join(wrong.values()))
    with pytest.raises(DataError, match=r"1 prepared images do not have the digests .* n00000003/val_0.JPEG: get them"):
        prepare(tiny(path), tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    assert prepare(tiny(path), tmp_path / "out")["dropped"]["test"].keys() == {"n00000003/val_0.JPEG"}


def test_disk_is_looked_at_before_large_files_are_read_for_their_digests(tmp_path, monkeypatch):
    source = replace(resolve(photos(), tmp_path), check=lambda: pytest.fail("they are read"))
    monkeypatch.setattr(writer, "resolve", lambda data, root, say: source)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(StorageError, match="more bytes are needed"):
        prepare(photos(), tmp_path / "out")


def test_the_estimate_is_made_with_what_will_be_used(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(writer, "quick_adm", lambda: used.append("compiled"))
    monkeypatch.setattr(writer, "to_array", lambda *arguments: used.append(arguments[-1]))
    source = resolve(photos(), tmp_path)
    for quick in (False, True):
        used.clear()
        writer._seconds_per_image(source, photos(), quick)
        assert used[0] == ("compiled" if quick else False) and set(used[1:]) == {quick}


HOLD = """
import sys, time
from pathlib import Path
from vqlib.files import exclusive
with exclusive(Path(sys.argv[1]), "testing"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_photographs_still_give_the_committed_manifest(tmp_path):
    """Every result of the sample stands on these bytes; another decoder may make others, which the manifest shows."""
    if f"pillow=={Image.__version__} " not in (ROOT / "requirements.lock").read_text():
        pytest.skip(f"Pillow {Image.__version__} is not the one of requirements.lock")
    lock = (ROOT / "dvc.lock").read_text()
    committed = re.findall(r"path: data/prepared/sample/manifest\.json\n +hash: md5\n +md5: (\w+)", lock)
    prepare(load_experiment("sample", ROOT).data, tmp_path, workers=1)
    assert set(committed) == {hashlib.md5((tmp_path / "manifest.json").read_bytes()).hexdigest()}


def test_a_second_writer_is_refused_before_it_looks_at_anything(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(BusyError, match=str(holder.pid)):
                prepare(tiny(tmp_path / "is not there"), tmp_path)
        finally:
            holder.kill()


def test_too_small_a_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(StorageError, match=r"689,280 more bytes are needed, 1,000 are free; free some space") as caught:
        prepare(photos(), tmp_path / "out")
    assert "\n" not in str(caught.value) and not list((tmp_path / "out").glob("*.u8*"))
    monkeypatch.undo()
    prepare(photos(image_size=16), tmp_path / "out")  # nothing was made, so another size is free to be asked for


@pytest.mark.parametrize(("call", "after"), [("posix_fallocate", 1), ("pwrite", 1500), ("write", 3)])
def test_full_disk_keeps_what_is_done(prepared_once, tmp_path, monkeypatch, call, after):
    original, calls = getattr(os, call), []

    def fail_late(*arguments):
        calls.append(1)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="free some space") as caught:
        patch.setattr(os, call, fail_late)
        prepare(photos(), tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "manifest.json").exists()
    prepare(photos(), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(prepared_once)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/out: Not a directory"):
        prepare(photos(), tmp_path / "file" / "out")


def test_preflight_says_disk_and_time(tmp_path):
    said = []
    prepare(photos(), tmp_path / "out", progress=said.append)
    assert said[0].startswith("photos at 8 px: 3,590 images, 1 MB in ") and said[0].endswith("about 0 min to decode")


def test_a_dead_worker_is_one_line(tmp_path, monkeypatch):
    source = replace(resolve(photos(), tmp_path), read=die)
    monkeypatch.setattr(writer, "resolve", lambda data, root, say: source)
    with pytest.raises(DataError, match="a worker process of prepare died"):
        prepare(photos(), tmp_path / "out", workers=2)


ZIP = raw_path("data/raw/tiny-imagenet-200.zip")


@pytest.mark.skipif(not os.environ.get("VQLIB_RAW") or not ZIP.is_file(), reason="VQLIB_RAW holds no Tiny ImageNet")
def test_real_tiny_imagenet(tmp_path):
    manifest = prepare(tiny(ZIP, image_size=32, limit=5, validation_every=5), tmp_path)
    assert {split: entry["count"] for split, entry in manifest["splits"].items()} == {
        "train": 800,
        "validation": 200,
        "test": 10_000,
    }
    test = open_split(tmp_path, "test")
    assert np.array_equal(np.bincount(test.labels), np.full(200, 50)) and not any(manifest["dropped"].values())
    gray = test.images[manifest["splits"]["test"]["odd"]["grayscale"]]
    assert len(gray) > 100 and (gray[..., :1] == gray).all()
