"""Imagenette, and what torchvision fetches: only when asked, and never without saying so."""

import urllib.error
import urllib.request

import pytest
from made_up import jpeg, write_folder

from vqlib.data.sources import cifar10, imagenette, resolve
from vqlib.data.sources.listing import Expected
from vqlib.errors import DataError
from vqlib.params import Data

FILES = {
    **{f"train/{wnid}/{wnid}_{n}.JPEG": jpeg(n) for wnid in ("n00000001", "n00000002") for n in range(4)},
    "train/n00000002/ILSVRC2012_val_00000011.JPEG": jpeg(8),
    "val/n00000001/n00000001_99.JPEG": jpeg(9),
    "val/n00000002/ILSVRC2012_val_00000012.JPEG": jpeg(10),
    "noisy_imagenette.csv": b"not looked at",
}


def asked(path, **options) -> Data:
    return Data(source="imagenette", path=str(path), image_size=8, validation_every=3, **options)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(imagenette, "IMAGENETTE", Expected("Imagenette", 2, 9, 2, None))


def test_both_kinds_of_names_are_in_both_splits(tmp_path):
    source = resolve(asked(write_folder(FILES, tmp_path / "imagenette2-160")), tmp_path)
    assert [item.key for item in source.items["test"]] == [
        "n00000001/n00000001_99.JPEG",
        "n00000002/ILSVRC2012_val_00000012.JPEG",
    ]
    assert source.classes == ["n00000001", "n00000002"] and source.whole


def test_a_killed_extraction_is_refused(tmp_path):
    files = {name: content for name, content in FILES.items() if not name.startswith("val/n00000002")}
    with pytest.raises(DataError, match="found 2 classes, 9 training, 1 validation images; Imagenette has 2 classes"):
        resolve(asked(write_folder(files, tmp_path / "imagenette2")), tmp_path)


def test_the_folder_has_to_have_torchvisions_name(tmp_path):
    with pytest.raises(DataError, match=r"data\.path must end in one of imagenette2, imagenette2-320, imagenette2-160"):
        resolve(asked(write_folder(FILES, tmp_path / "imagenette")), tmp_path)


def test_nothing_is_downloaded_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenette, "_download", lambda *_: pytest.fail("it downloads"))
    with pytest.raises(
        DataError, match=r"imagenette2 is missing: extract imagenette2\.tgz there, or set data\.download"
    ):
        resolve(asked(tmp_path / "imagenette2"), tmp_path)


def test_a_download_is_announced_and_its_failure_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    said = []

    def no_network(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    for data, line in (
        (asked(tmp_path / "imagenette2-160", download=True), "torchvision downloads Imagenette (160px) into"),
        (
            Data(source="cifar10", path=str(tmp_path), image_size=8, download=True),
            "torchvision downloads CIFAR-10 (170 MB)",
        ),
    ):
        with pytest.raises(DataError, match=r"the download failed \(.*no network") as caught:
            resolve(data, tmp_path, said.append)
        assert said[-1].startswith(line) and "\n" not in str(caught.value)


def test_torchvisions_pinned_digests_are_ours():
    datasets = pytest.importorskip("torchvision.datasets")
    assert dict(datasets.CIFAR10.train_list + datasets.CIFAR10.test_list) == cifar10.MD5
    assert datasets.CIFAR10.tgz_md5 == cifar10.ARCHIVE_MD5
    assert set(imagenette.SIZES.values()) == set(datasets.Imagenette._ARCHIVES)
