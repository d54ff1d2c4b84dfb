"""What is found in a source, in which order, and what is refused."""

import os
import random
import zipfile

import numpy as np
import pytest
from made_up import WNIDS, jpeg, photos, tiny, tiny_files, write_folder, write_zip

from vqlib.data.reader import SPLITS
from vqlib.data.sources import photos as photos_source
from vqlib.data.sources import resolve, trees
from vqlib.errors import DataError, UserError


def listed(source) -> dict:
    return {split: [(item.key, item.identity) for item in items] for split, items in source.items.items()}


def test_zip_and_folder_list_alike_in_any_order(tmp_path):
    files = tiny_files()
    backwards = dict(reversed(files.items()))
    sources = [
        resolve(tiny(path), tmp_path)
        for path in (
            write_zip(files, tmp_path / "a.zip"),
            write_zip(backwards, tmp_path / "b.zip", top=""),
            write_folder(backwards | {"toytrain/x": b"not looked at"}, tmp_path / "c"),
            write_folder({f"tiny-imagenet-200/{name}": content for name, content in files.items()}, tmp_path / "d"),
        )
    ]
    assert all(listed(source) == listed(sources[0]) for source in sources)
    assert sources[0].classes == sorted(WNIDS)
    for source in sources:
        assert [source.read(item.place) for item in source.items["test"]] == [
            files[f"val/images/{item.name}"] for item in source.items["test"]
        ]


def test_items_are_ordered_by_class_and_name_and_belong_to_one_split(tmp_path):
    items = resolve(tiny(write_folder(tiny_files(train=11), tmp_path), validation_every=4), tmp_path).items
    keys = {split: [item.key for item in items[split]] for split in items}
    assert all(keys[split] == sorted(keys[split]) for split in keys)
    assert sorted(keys["train"] + keys["validation"]) == sorted(f"{w}/{w}_{n}.JPEG" for w in WNIDS for n in range(11))
    ordered = sorted(f"n00000001/n00000001_{n}.JPEG" for n in range(11))
    assert [key for key in keys["validation"] if key.startswith("n00000001")] == ordered[::4]


def test_limit_counts_training_images_of_each_class(tmp_path):
    items = resolve(tiny(write_folder(tiny_files(), tmp_path), limit=4), tmp_path).items
    assert {split: len(items[split]) for split in items} == {"train": 6, "validation": 6, "test": 6}


def test_a_limit_takes_the_images_that_a_smaller_source_of_the_same_has(tmp_path):
    limited = resolve(tiny(write_folder(tiny_files(train=13), tmp_path / "more"), limit=11), tmp_path).items
    smaller = resolve(tiny(write_folder(tiny_files(train=11), tmp_path / "less")), tmp_path).items
    assert [[item.key for item in limited[s]] for s in SPLITS] == [[item.key for item in smaller[s]] for s in SPLITS]


def test_the_folder_is_found_where_the_zip_was_expected(tmp_path):
    write_folder(tiny_files(), tmp_path / "tiny")
    assert len(resolve(tiny(tmp_path / "tiny.zip"), tmp_path).items["test"]) == 6


def test_files_that_desktops_leave_behind_are_not_seen(tmp_path):
    files = tiny_files()
    clutter = {".DS_Store": b"x", "train/.DS_Store": b"x", "val/images/._val_0.JPEG": b"x", "__MACOSX/train/x": b"x"}
    assert listed(resolve(tiny(write_zip(files | clutter, tmp_path / "a.zip")), tmp_path)) == listed(
        resolve(tiny(write_zip(files, tmp_path / "b.zip")), tmp_path)
    )


def without(files: dict, start: str) -> dict:
    return {name: content for name, content in files.items() if not name.startswith(start)}


FILES = tiny_files()
ANNOTATIONS = FILES["val/val_annotations.txt"]
PARTIAL = {
    "class missing": (without(FILES, "train/n00000002"), "2 classes in train/, 3 in wnids.txt: missing n00000002"),
    "class too many": (
        FILES | {"train/n00000009/images/n00000009_0.JPEG": b"x"},
        "4 classes in train/, 3 in wnids.txt: too many n00000009",
    ),
    "class missing, no wnids.txt": (
        without(without(FILES, "train/n00000002"), "wnids"),
        "2 classes in train/, 3 in val_annotations.txt: missing n00000002",
    ),
    "stray folder": (FILES | {"train/backup/images/x.JPEG": b"x"}, "train/backup/images/x.JPEG does not belong there"),
    "image of another class": (
        FILES | {"train/n00000001/images/n00000002_77.JPEG": b"x"},
        "n00000002_77.JPEG does not belong there",
    ),
    "no annotations": (without(FILES, "val/val_annotations.txt"), "val/val_annotations.txt is missing"),
    "annotation missing": (
        FILES | {"val/val_annotations.txt": ANNOTATIONS[: ANNOTATIONS.rindex(b"val_")]},
        "6 files in val/images/, 5 in val_annotations.txt: too many val_5.JPEG",
    ),
    "annotation torn": (FILES | {"val/val_annotations.txt": ANNOTATIONS + b"val_9.JPEG\tn0000"}, "line 7: 'val_9.JPEG"),
    "validation image missing": (without(FILES, "val/images/val_2"), "missing val_2.JPEG"),
    "validation images moved to the side": (
        without(FILES, "val/images/val_2") | {"val/n00000001/val_2.JPEG": b"x"},
        "6 files in val/images/, 6 in val_annotations.txt: missing val_2.JPEG, too many val/n00000001/val_2.JPEG",
    ),
    "no training images": (without(FILES, "train"), "expected one folder train/"),
    "empty": ({}, "no files"),
}


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "folder"])
@pytest.mark.parametrize("case", PARTIAL)
def test_partial_or_mixed_up_trees_are_refused_with_counts(case, as_zip, tmp_path):
    files, message = PARTIAL[case]
    path = write_zip(files, tmp_path / "tiny.zip") if as_zip else write_folder(files, tmp_path / "tiny")
    with pytest.raises(DataError) as caught:
        resolve(tiny(path), tmp_path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_path_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.delenv("VQLIB_RAW", raising=False)
    with pytest.raises(DataError, match=r"tiny.zip is missing: put Tiny ImageNet there.*237 MB.*VQLIB_RAW") as caught:
        resolve(tiny("data/raw/tiny.zip"), tmp_path)
    assert str(tmp_path / "data/raw/tiny.zip") in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"data\.path is null"):
        resolve(tiny("x").model_copy(update={"path": None}), tmp_path)


def test_raw_data_may_lie_elsewhere(tmp_path, monkeypatch):
    write_zip(tiny_files(), tmp_path / "tiny.zip")
    monkeypatch.setenv("VQLIB_RAW", str(tmp_path))
    assert resolve(tiny("data/raw/tiny.zip"), tmp_path / "repository").classes == sorted(WNIDS)


def test_links_to_folders_are_followed_once(tmp_path):
    before = listed(resolve(tiny(write_folder(FILES, tmp_path / "a")), tmp_path))
    path = write_folder(FILES, tmp_path / "b")
    for name in ("train/n00000001", "val"):
        moved = (path / name).rename(tmp_path / name.replace("/", "_"))
        (path / name).symlink_to(moved)
    assert listed(resolve(tiny(path), tmp_path)) == before
    (path / "train" / "again").symlink_to(path / "train")
    with pytest.raises(DataError, match="train/again is a link to a folder that is there once already"):
        resolve(tiny(path), tmp_path)


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    path, scandir = write_folder(FILES, tmp_path / "tiny"), os.scandir

    def locked(folder):
        if str(folder).endswith("n00000002"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match=r"train/n00000002 cannot be read \(Permission denied\): make it readable"):
        resolve(tiny(path), tmp_path)


def test_flipped_bits_in_the_directory_of_a_zip_are_refused_or_harmless(tmp_path):
    path, draw = write_zip(tiny_files(train=2), tmp_path / "tiny.zip"), random.Random(0)
    good = path.read_bytes()
    for number in range(150):
        damaged, flipped = bytearray(good), tmp_path / f"{number}.zip"
        damaged[draw.randrange(good.index(b"PK\1\2"), len(good))] ^= 1 << draw.randrange(8)
        flipped.write_bytes(damaged)
        try:
            source = resolve(tiny(flipped), tmp_path)
            for item in source.items["train"]:
                source.read(item.place)
        except DataError as error:
            assert "\n" not in str(error)


def test_a_name_may_be_a_number_of_any_length(tmp_path):
    name = "train/n00000001/images/n00000001_" + "1" * 5000 + ".JPEG"
    source = resolve(tiny(write_zip(FILES | {name: jpeg(1)}, tmp_path / "tiny.zip"), limit=6), tmp_path)
    assert not any("1111" in item.name for item in source.items["train"])


@pytest.mark.parametrize("kept", [0, 30, 0.5, 0.99])
def test_truncated_zip_is_refused(kept, tmp_path):
    path = write_zip(tiny_files(), tmp_path / "tiny.zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(DataError, match="no whole zip file"):
        resolve(tiny(path), tmp_path)


def test_a_name_that_is_twice_in_the_zip_is_refused(tmp_path):
    path = write_zip(tiny_files(), tmp_path / "tiny.zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("tiny-imagenet-200/val/images/val_0.JPEG", b"another")
    with pytest.raises(DataError, match="is in it twice"):
        resolve(tiny(path), tmp_path)


def test_flipped_bit_in_a_member_is_noticed(tmp_path):
    files = tiny_files()
    path = write_zip(files, tmp_path / "tiny.zip")
    source = resolve(tiny(path), tmp_path)
    item = source.items["train"][1]
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo(item.place[0]).header_offset + 30 + len(item.place[0]) + 50
    damaged = bytearray(path.read_bytes())
    damaged[offset] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=item.name):
        source.read(item.place)


def test_a_member_never_gives_more_bytes_than_the_zip_says(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.JPEG", bytes(2_000_000))
    lying = path.read_bytes().replace((2_000_000).to_bytes(4, "little"), (1_000).to_bytes(4, "little"))
    path.write_bytes(lying)
    with pytest.raises(DataError, match="damaged"):
        trees.read_member(str(path), "a.JPEG")


def test_giant_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "MAX_BYTES", 50)
    with pytest.raises(DataError, match="at most 50"):
        resolve(tiny(write_zip(tiny_files(), tmp_path / "tiny.zip")), tmp_path)


def test_photographs_are_split_by_scene_and_cut_alike_at_every_size(tmp_path):
    small, large = resolve(photos(image_size=8), tmp_path), resolve(photos(image_size=512), tmp_path)
    assert listed(small) == listed(large) and small.classes == ["photo"]
    scenes = {split: {item.name.split("_")[0] for item in items} for split, items in small.items.items()}
    assert scenes["train"].isdisjoint(scenes["validation"] | scenes["test"])
    assert scenes["validation"].isdisjoint(scenes["test"])
    counts = {split: len(items) for split, items in small.items.items()}
    assert counts["train"] >= 2000 and counts["validation"] >= 300 and counts["test"] >= 500
    for items in small.items.values():
        assert [item.key for item in items] == sorted({item.key for item in items})


def test_crops_are_inside_the_photograph_and_reach_its_edges():
    boxes = np.array(photos_source.grid(91, 64, 20))  # left, upper, right, lower
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 91).all() and (boxes[:, 3] <= 64).all()
    assert (boxes[:, 2:] - boxes[:, :2] == 20).all() and len({tuple(box) for box in boxes.tolist()}) == len(boxes)
    assert boxes[:, 2].max() > 91 - 5 and boxes[:, 3].max() > 64 - 5
