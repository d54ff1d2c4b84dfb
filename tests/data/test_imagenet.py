"""ImageNet: every layout gives the same prepared data; what is partial, ambiguous or damaged is refused with counts."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile

import numpy as np
import pytest
from made_up import WNIDS, contents, jpeg, picture, write_folder
from made_up_imagenet import (
    LAYOUTS,
    imagenet,
    kaggle_files,
    labels_as,
    tar_of,
    train_images,
    train_tar,
    tree_files,
    val_images,
    write_archives,
    write_parquet,
    write_shard,
)
from PIL import Image

from vqlib.data import open_split, prepare
from vqlib.data.images import to_array
from vqlib.data.sources import digests, matlab, resolve
from vqlib.data.sources import imagenet as source
from vqlib.data.sources.listing import Expected
from vqlib.errors import DataError, ParameterError
from vqlib.params import raw_path


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The contents that every layout has to give."""
    folder = tmp_path_factory.mktemp("imagenet")
    prepare(imagenet(LAYOUTS["archives"](folder / "raw")), folder / "out", root=folder)
    return contents(folder / "out")


@pytest.fixture
def as_whole(monkeypatch):
    """The made-up set is all there is."""
    monkeypatch.setattr(source, "ILSVRC2012", Expected("made-up", 3, 18, 6, 2))


def refusal(call) -> str:
    """The one line with which ``call`` ends."""
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(path, **options) -> str:
    """The one line with which ``path`` is refused."""
    return refusal(lambda: resolve(imagenet(path, **options), path.parent))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bytes(layout, expected, tmp_path):
    prepare(imagenet(LAYOUTS[layout](tmp_path / "raw")), tmp_path / "out", root=tmp_path)
    assert contents(tmp_path / "out") == expected


def test_images_have_the_labels_of_their_classes(tmp_path):
    write_archives(tmp_path / "raw", labels="devkit")
    prepare(imagenet(tmp_path / "raw"), tmp_path / "out", root=tmp_path)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["classes"] == sorted(WNIDS)
    test, names = open_split(tmp_path / "out", "test"), manifest["splits"]["test"]["names"]
    for name, label, image in zip(names, test.labels, test.images, strict=True):
        wnid, content = val_images()[name]
        assert sorted(WNIDS)[label] == wnid and np.array_equal(image, to_array(content, name, 8, "adm")[0])


def test_worker_processes_read_archives_alike(tmp_path):
    train = {f"{w}/{w}_{n}.JPEG": jpeg(n % 50) for w in WNIDS for n in range(800)}
    data = imagenet(write_archives(tmp_path / "raw", train=train))
    for workers in (1, 2):
        prepare(data, tmp_path / str(workers), root=tmp_path, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def without(files: dict, start: str) -> dict:
    return {name: content for name, content in files.items() if not name.startswith(start)}


TREE = tree_files()
FLAT = tree_files(val_by_class=False)
NOT_WHOLE = {
    "class missing": (without(TREE, "train/n00000002"), "found 2 classes, 12 training, 6 validation images"),
    "training image missing": (without(TREE, "train/n00000002/n00000002_7"), "3 classes, 17 training, 6 validation"),
    "validation image missing": (without(TREE, "val/n00000002/ILSVRC2012_val_00000002"), "18 training, 5 validation"),
    "a class more": (TREE | {"train/n00000009/n00000009_0.JPEG": b"x"}, "found 4 classes, 19 training, 6 validation"),
    "one class for another": (
        without(TREE, "train/n00000002") | {f"train/n00000009/n00000009_{n}.JPEG": b"x" for n in range(6)},
        "found 3 classes, 18 training, 6 validation images (4 classes in all)",
    ),
    "validation image in another class": (
        without(TREE, "val/n00000002/ILSVRC2012_val_00000002") | {"val/n00000001/ILSVRC2012_val_00000002.JPEG": b"x"},
        "classes have 1 to 3 validation images each; in made-up each has 2",
    ),
}
MIXED_UP = {
    "extra folder": (
        TREE | {"train/extra/cat.JPEG": b"x"},
        "1 files do not belong there, the first is train/extra/cat.JPEG",
    ),
    "image of another class": (TREE | {"train/n00000001/n00000002_99.JPEG": b"x"}, "1 files do not belong there"),
    "inner tars left": (
        TREE | {f"train/{wnid}.tar": b"x" for wnid in WNIDS},
        "3 files do not belong there, the first is train/n00000001.tar; 18 images are in train/<wnid>/, 6 in val/",
    ),
    "flat val without classes": (FLAT, "what class a validation image has is not said; expected is ILSVRC2012_devkit"),
    "flat val with classes of fewer": (
        FLAT | labels_as("wnids", dict(list(val_images().items())[:5])),
        "found 6 validation images, and classes for 5; ILSVRC2012_val_00000006.JPEG is in one of the two",
    ),
    "flat val of fewer": (
        without(FLAT, "val/ILSVRC2012_val_00000002") | labels_as("wnids", val_images()),
        "found 5 validation images, and classes for 6; ILSVRC2012_val_00000002.JPEG is in one of the two alone",
    ),
    "val moved by half": (
        without(FLAT, "val/ILSVRC2012_val_00000002") | {"val/n00000002/ILSVRC2012_val_00000002.JPEG": b"x"},
        "val is moved by half: 5 images lie in val/ itself, 1 in folders of classes",
    ),
    "lists that disagree": (
        FLAT
        | labels_as("wnids", val_images())
        | {"LOC_val_solution.csv": b"ImageId,PredictionString\nx,n00000001 1\n"},
        "ILSVRC2012_val_wnids.txt and LOC_val_solution.csv disagree",
    ),
    "a list that is none": (FLAT | {"ILSVRC2012_val_wnids.txt": b"<html>404</html>"}, "is no wnid such as n01440764"),
    "two layouts": (TREE | kaggle_files(), "found a folder tree and Kaggle's tree"),
    "no layout": (
        {"images/x.JPEG": b"x"},
        "found no layout of ImageNet (there lie images); expected is one of archives",
    ),
    "no validation images": (
        without(TREE, "val/"),
        "no images were found as val/<wnid>/*.JPEG or val/*.JPEG (there lie",
    ),
    "val/ of another name": (
        {name.replace("val/", "validation/", 1): content for name, content in TREE.items()},
        "(there lie train, validation); get what is missing, or name it so",
    ),
    "val tar of zeros": (
        {"ILSVRC2012_img_train.tar": train_tar(train_images()), "ILSVRC2012_img_val.tar": bytes(10_240)},
        "ILSVRC2012_img_val.tar: no images were found as ILSVRC2012_val_<8 digits>.JPEG",
    ),
    "another ending": (
        TREE | {"train/n00000001/n00000001_99.jpg": b"x"},
        "an image is named <wnid>_<number>.JPEG or ILSVRC2012_val_<8 digits>.JPEG, with just this ending",
    ),
    "one folder too deep": (
        {f"imagenet/{name}": content for name, content in TREE.items()},
        "raw/imagenet holds one: let data.path name that folder",
    ),
    "tar in gzip": (
        {"ILSVRC2012_img_train.tar": gzip.compress(train_tar(train_images())), "ILSVRC2012_img_val.tar": b""},
        "ILSVRC2012_img_train.tar is compressed by gzip, it must be the plain tar: decompress it with `gunzip`",
    ),
    "HTML for a tar": (
        {"ILSVRC2012_img_train.tar": b"\n<!DOCTYPE html>", "ILSVRC2012_img_val.tar": b""},
        "ILSVRC2012_img_train.tar is a web page and no tar: the download went wrong; get the file again",
    ),
    "folder for a tar": (
        {"ILSVRC2012_img_train.tar/x": b"", "ILSVRC2012_img_val.tar": b""},
        "ILSVRC2012_img_train.tar is a folder; it must be the archive itself",
    ),
    "a name that no archive has": (
        {"ILSVRC2012_img_train.tar": tar_of({"train/x": b""}), "ILSVRC2012_img_val.tar": b""},
        "'train/x' does not belong there; a name must be n<8 digits>.tar",
    ),
    "a quote that is not closed": (
        FLAT | {"LOC_val_solution.csv": b'ImageId,PredictionString\n"' + b"x" * 200_000},
        "LOC_val_solution.csv is no readable CSV (field larger than field limit (131072))",
    ),
    "a folder for a list": (
        FLAT | {"ILSVRC2012_val_wnids.txt/x": b""},
        "val_wnids.txt must be a file, and is a folder",
    ),
    "one archive": ({"ILSVRC2012_img_train.tar": b"x"}, "ILSVRC2012_img_val.tar is missing, while"),
}


@pytest.mark.parametrize("case", NOT_WHOLE)
def test_a_set_that_is_not_whole_is_refused_unless_that_is_allowed(case, as_whole, tmp_path):
    files, message = NOT_WHOLE[case]
    path = write_folder(files, tmp_path / "raw")
    line = refused(path, partial=False)
    assert message in line and str(path) in line
    assert "set data.partial to true" in line or "each has 2" in line
    assert resolve(imagenet(path), tmp_path).items["test"]


@pytest.mark.parametrize("case", MIXED_UP)
def test_what_does_not_fit_together_is_refused_always(case, as_whole, tmp_path):
    files, message = MIXED_UP[case]
    path = write_folder(files, tmp_path / "raw")
    for partial in (True, False):
        assert message in refused(path, partial=partial)


def test_the_whole_of_ilsvrc2012_is_asked_for_by_default(tmp_path):
    line = refused(LAYOUTS["tree"](tmp_path / "raw"), partial=False)
    assert "found 3 classes, 18 training, 6 validation images" in line
    assert "ILSVRC2012 has 1,000 classes, 1,281,167 training, 50,000 validation images" in line


def test_a_missing_folder_says_what_may_be_put_there(tmp_path):
    line = refused(tmp_path / "imagenet")
    assert (
        "put ImageNet there as archives, a folder tree, Kaggle's tree, parquet shards" in line and "VQLIB_RAW" in line
    )
    with pytest.raises(ParameterError, match=r"data\.path is null; for the source imagenet it must be a path"):
        resolve(imagenet(tmp_path).model_copy(update={"path": None}), tmp_path)


def test_archives_may_lie_in_the_folder_above(tmp_path):
    write_archives(tmp_path)
    assert len(resolve(imagenet(tmp_path / "imagenet"), tmp_path).items["test"]) == 6


def test_a_bad_image_ends_a_whole_set_and_is_dropped_from_a_partial_one(as_whole, tmp_path):
    files = TREE | {"train/n00000001/n00000001_7.JPEG": jpeg(1)[:-60]}
    path = write_folder(files, tmp_path / "raw")
    with pytest.raises(
        DataError, match=r"n00000001/n00000001_7.JPEG cannot be read \(.*truncated.*data.partial"
    ) as caught:
        prepare(imagenet(path, partial=False), tmp_path / "out", root=tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "manifest.json").exists()
    manifest = prepare(imagenet(path), tmp_path / "out", root=tmp_path)  # to allow it changes nothing that was made
    assert list(manifest["dropped"]["train"]) == ["n00000001/n00000001_7.JPEG"]


def test_on_a_whole_set_the_odd_files_are_those_of_the_original(monkeypatch, tmp_path):
    cmyk = io.BytesIO()
    picture(5).convert("CMYK").save(cmyk, "JPEG")
    files = TREE | {"train/n00000001/n00000001_7.JPEG": cmyk.getvalue()}
    data = imagenet(write_folder(files, tmp_path / "raw"), partial=False)
    for known, line in (
        (set(), "n00000001_7.JPEG is cmyk, unlike in the original (1 such files, 0 were expected)"),
        (
            {"n00000001_7.JPEG", "n00000002_7.JPEG"},
            "n00000002_7.JPEG is not cmyk, unlike in the original (1 such files, 2 ",
        ),
        ({"n00000001_7.JPEG", "n00000008_1.JPEG"}, None),  # one that a limit left out is not asked for
    ):
        whole = Expected("made-up", 3, 18, 6, 2, {"cmyk": frozenset(known), "png_as_jpeg": frozenset()})
        monkeypatch.setattr(source, "ILSVRC2012", whole)
        if line:
            with pytest.raises(DataError, match=re.escape(line)):
                prepare(data, tmp_path / "out", root=tmp_path)
            assert not (tmp_path / "out" / "manifest.json").exists()
        else:
            splits = prepare(data, tmp_path / "out", root=tmp_path)["splits"]
            assert sum(len(splits[split]["odd"].get("cmyk", [])) for split in ("train", "validation")) == 1
    partial = data.model_copy(update={"partial": True})
    assert prepare(partial, tmp_path / "out", root=tmp_path)["splits"] == splits


def test_the_odd_files_of_ilsvrc2012():
    assert {kind: len(names) for kind, names in source.ODD.items()} == {"cmyk": 22, "png_as_jpeg": 1}
    assert all(re.fullmatch(r"n\d{8}_\d+\.JPEG", name) for names in source.ODD.values() for name in names)


def test_digests_of_archives_are_computed_once_and_remembered(as_whole, monkeypatch, tmp_path):
    path, said = write_archives(tmp_path / "raw"), []
    check = resolve(imagenet(path, partial=False), tmp_path, said.append).check
    assert not any("md5" in line for line in said)  # listing does not wait for them
    line = refusal(check)
    assert "ILSVRC2012_img_train.tar: its md5 is" in line and "it must be 1d675b47d978889d74fa0da5fadfb00e" in line
    real = json.loads((tmp_path / "data" / "prepared" / "digests.json").read_bytes())
    monkeypatch.setattr(source, "MD5", {"ILSVRC2012_img_train.tar": next(iter(real.values()))})
    check = resolve(imagenet(path, partial=False), tmp_path, said.append).check
    said.clear()
    check()
    assert said == [f"{path}: the digests of 2 files are those expected"]
    monkeypatch.setattr(digests, "digest_of_file", lambda *_: None)
    check()
    os.utime(path / "ILSVRC2012_img_train.tar", ns=(0, 0))
    assert "its md5 is None" in refusal(check)


def test_lists_of_digests_are_checked(tmp_path):
    path = write_archives(tmp_path / "raw")
    (path / "SHA256SUMS").write_text(f"{'0' * 64} *ILSVRC2012_img_val.tar\n")
    check = resolve(imagenet(path), tmp_path).check
    assert "SHA256SUMS must list just" in refusal(check) and "ILSVRC2012_img_train.tar is not listed" in refusal(check)
    train = hashlib.sha256((path / "ILSVRC2012_img_train.tar").read_bytes()).hexdigest()
    (path / "SHA256SUMS").write_text(f"{train}  ./ILSVRC2012_img_train.tar\n{'0' * 64} *ILSVRC2012_img_val.tar\n")
    assert "ILSVRC2012_img_val.tar: its sha256 is" in refusal(check)
    lines = "".join(f"{hashlib.md5(content).hexdigest()}  ./{name}\n" for name, content in TREE.items())
    files = TREE | {"MD5SUMS": lines.encode()}
    files["val/n00000001/ILSVRC2012_val_00000004.JPEG"] = jpeg(77)  # a good picture, but another
    manifest = prepare(imagenet(write_folder(files, tmp_path / "tree")), tmp_path / "out", root=tmp_path)
    assert manifest["dropped"] == {
        "train": {},
        "validation": {},
        "test": {"n00000001/ILSVRC2012_val_00000004.JPEG": "its digest is another than the one listed"},
    }


def sums(files: dict[str, bytes], before: str = "") -> bytes:
    return "".join(
        f"{hashlib.sha256(content).hexdigest()}  {before}{name}\n" for name, content in files.items()
    ).encode()


BAD_LISTS = {
    "names with a prefix": (
        sums(TREE, "imagenet/"),
        "SHA256SUMS must list just the images or archives that are there: 0",
    ),
    "one not listed": (sums(dict(list(TREE.items())[1:])), "23 files are listed, 24 are there, 23 are both; train/n0"),
    "one not there": (
        sums(TREE | {"val/x.JPEG": b""}),
        "25 files are listed, 24 are there, 24 are both; val/x.JPEG is",
    ),
    "a web page": (
        b"<html>404</html>",
        "SHA256SUMS, line 1: '<html>404</html>' must be 32 or 64 hex digits and the name",
    ),
    "UTF-16": (sums(TREE).decode().encode("utf-16"), "SHA256SUMS, line 1: "),
    "two digests of a name": (sums(TREE) + b"0" * 32 + b"  val/x\n" + b"1" * 32 + b"  val/x\n", "SHA256SUMS, line 26:"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_a_list_that_checks_less_than_all_is_refused(case, tmp_path):
    content, message = BAD_LISTS[case]
    assert message in refused(write_folder(TREE | {"SHA256SUMS": content}, tmp_path / "raw"))


def test_whether_digests_are_checked_is_said_once(tmp_path):
    files = TREE | {"SHA256SUMS": b"\xef\xbb\xbf" + sums(TREE | {"readme.txt": b""}).replace(b"\n", b"\r\n")}
    for name, content, what in (
        ("a", files, "each image is checked against SHA256SUMS as it is read"),
        ("b", TREE, "no SHA256SUMS or MD5SUMS is there"),
    ):
        said = []
        resolve(imagenet(write_folder(content, tmp_path / name)), tmp_path, said.append)
        assert sum(what in line for line in said) == 1


def test_parquet_shards_are_checked_by_a_list(tmp_path):
    path, said = write_parquet(tmp_path / "raw"), []
    shards = {file.name: file.read_bytes() for file in (path / "data").iterdir()}
    write_folder({"SHA256SUMS": sums(shards, "data/")}, path)
    resolve(imagenet(path), tmp_path, said.append).check()
    assert said[-1].endswith("the digests of 4 files are those expected")
    (path / "data" / "SHA256SUMS").write_bytes(sums(shards | {"train-00001-of-00002.parquet": b"other bytes"}))
    check = resolve(imagenet(path), tmp_path).check
    assert "train-00001-of-00002.parquet: its sha256 is" in refusal(check)


@pytest.mark.parametrize("form", ["wnids", "solution"])
def test_a_list_may_begin_with_a_byte_order_mark(form, tmp_path):
    ((name, content),) = labels_as(form, val_images()).items()
    before = resolve(imagenet(write_folder(FLAT | {name: content}, tmp_path / "a")), tmp_path).items["test"]
    path = write_folder(FLAT | {name: b"\xef\xbb\xbf" + content}, tmp_path / "b")
    assert resolve(imagenet(path), tmp_path).items["test"] == before


def test_the_devkit_may_hold_folders_and_other_files(tmp_path):
    path = write_archives(tmp_path / "raw", labels="devkit.tar.gz")
    before = resolve(imagenet(path), tmp_path).items["test"]
    plain = gzip.decompress((path / "ILSVRC2012_devkit_t12.tar.gz").read_bytes())
    folders = tar_of({f"ILSVRC2012_devkit_t12/{name}": b"" for name in ("", "data/")}, type=tarfile.DIRTYPE)
    (path / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(folders[:1024] + plain))
    assert resolve(imagenet(path), tmp_path).items["test"] == before


@pytest.mark.parametrize("kept", [0, 1, 511, 512, 5000, 0.3, 0.5, 0.7, -1024, -10240])
@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_a_truncated_archive_is_refused(name, kept, tmp_path):
    path = write_archives(tmp_path / "raw")
    content = (path / name).read_bytes()
    kept = int(kept * len(content)) if 0 < kept < 1 else kept
    content = content.rstrip(b"\0") + bytes(700) if kept == -1024 else content[:kept]
    (path / name).write_bytes(content)
    line = refused(path)
    assert name in line and ("cut off" in line or "does not belong" in line)


def test_a_truncated_inner_archive_is_refused(tmp_path):
    path = write_archives(tmp_path / "raw")
    inner = tar_of({"n00000001_1.JPEG": jpeg(1)})
    for length, message in ((700, "cut off in 'n00000001_1.JPEG'"), (-10240 + 1024, "closing zero blocks are missing")):
        cut = inner[:length] if length > 0 else inner.rstrip(b"\0") + bytes(-len(inner.rstrip(b"\0")) % 512)
        (path / "ILSVRC2012_img_train.tar").write_bytes(tar_of({"n00000001.tar": cut}))
        assert message in refused(path)


def test_a_flipped_bit_in_a_header_is_refused(tmp_path):
    path = write_archives(tmp_path / "raw") / "ILSVRC2012_img_val.tar"
    good = path.read_bytes()
    for position in (3, 20, 99, 124, 130, 150, 156, 260):
        damaged = bytearray(good)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert "no tar header" in refused(path.parent)


def test_flipped_bits_of_a_devkit_are_refused_or_harmless(tmp_path):
    path = write_archives(tmp_path / "raw", labels="devkit") / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
    good = path.read_bytes()
    before = resolve(imagenet(tmp_path / "raw"), tmp_path).items["test"]
    draw = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(good)
        damaged[draw.integers(len(good))] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        try:
            assert resolve(imagenet(tmp_path / "raw"), tmp_path).items["test"] == before
        except DataError as error:
            assert "\n" not in str(error)


def test_matlab_reader_agrees_with_scipy():
    scipy_io = pytest.importorskip("scipy.io")
    values = {"x": np.eye(2), "s": np.array([(3.5, "ab", np.arange(5, dtype=np.uint8))], dtype="O,O,O").reshape(1, 1)}
    for compressed in (True, False):
        buffer = io.BytesIO()
        scipy_io.savemat(buffer, values, do_compression=compressed)
        (found,) = matlab.read_structs(buffer.getvalue(), "s")
        assert found == {"f0": [3.5], "f1": "ab", "f2": [0, 1, 2, 3, 4]}
    for content in (b"", b"MATLAB 7.3 " * 50, buffer.getvalue()[:300]):
        with pytest.raises(DataError, match="MATLAB file"):
            matlab.read_structs(content, "s")


def damaged_parquet(folder):
    path = folder / "data" / "train-00000-of-00002.parquet"
    return path, bytearray(path.read_bytes())


def test_damaged_or_partial_parquet_is_refused(tmp_path):
    path, content = damaged_parquet(write_parquet(tmp_path / "raw"))
    path.write_bytes(content[:-100])
    assert "train-00000-of-00002.parquet is no whole parquet file" in refused(tmp_path / "raw")
    path.unlink()
    assert "1 of 2 train shards are there; number 0 is missing" in refused(tmp_path / "raw")
    write_shard(path, [("n00000001_1.JPEG", b"x", 0), ("n00000003_1.JPEG", b"x", 1), ("n00000002_1.JPEG", b"x", 2)])
    assert "labels are not in the order of wnids" in refused(tmp_path / "raw")
    write_shard(path, [("cat.JPEG", b"x", 0)])
    assert "row 0 of group 0 is 'cat.JPEG' with label 0; expected is a name such as" in refused(tmp_path / "raw")
    shutil.copy(path, path.with_name("more.parquet"))
    assert "more.parquet does not belong there" in refused(tmp_path / "raw")


def test_exif_in_parquet_does_not_rotate(tmp_path):
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture(3).save(buffer, "JPEG", exif=exif)
    write_parquet(tmp_path / "raw", shards=1)
    write_shard(
        tmp_path / "raw" / "data" / "validation-00000-of-00001.parquet",
        [("ILSVRC2012_val_00000001_n00000001.JPEG", buffer.getvalue(), 0)],
    )
    prepare(imagenet(tmp_path / "raw"), tmp_path / "out", root=tmp_path)
    assert np.array_equal(open_split(tmp_path / "out", "test").images[0], to_array(jpeg(3), "x", 8, "adm")[0])


REAL = raw_path("data/raw/ILSVRC2012_img_train.tar")


@pytest.mark.skipif(
    not os.environ.get("VQLIB_RAW") or not REAL.is_file(), reason="VQLIB_RAW holds no ILSVRC2012 archives"
)
def test_real_archives_and_their_tree_give_the_same(tmp_path):
    data = imagenet("data/raw/imagenet", image_size=32)
    manifest = prepare(data, tmp_path / "a", root=tmp_path, workers=1)
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4 on
    with tarfile.open(REAL) as archive:
        for member in archive:
            with tarfile.open(fileobj=archive.extractfile(member)) as inner:
                inner.extractall(tmp_path / "raw" / "train" / member.name[:9], **safely)
    source_items = resolve(data, tmp_path)
    for item in source_items.items["test"]:
        folder = tmp_path / "raw" / "val" / item.wnid
        folder.mkdir(parents=True)
        (folder / item.name).write_bytes(source_items.read(item.place))
    prepare(imagenet(tmp_path / "raw", image_size=32), tmp_path / "b", root=tmp_path, workers=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not any(manifest["dropped"].values()) and manifest["splits"]["test"]["odd"]["grayscale"]
