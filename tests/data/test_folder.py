"""Images of one's own, in folders of classes."""

import hashlib
import io

import numpy as np
import pytest
from made_up import contents, jpeg, picture, write_folder, write_zip

from vqlib.data import open_split, prepare
from vqlib.data.images import to_array
from vqlib.errors import DataError
from vqlib.params import Data


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed, 40, 20).convert("RGBA").save(buffer, "PNG")
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """Two classes of JPEGs and PNGs; by their paths the one with a longer name comes first."""
    made = {f"train/cat b/{n}.JPG": jpeg(n) for n in range(5)} | {f"train/cat/b {n}.png": png(n) for n in range(4)}
    return made | {"val/cat/a.jpeg": jpeg(70), "val/cat/b.png": png(71), "README.txt": b"not looked at"}


def own(path, **options) -> Data:
    return Data(source="folder", path=str(path), **{"image_size": 8, "validation_every": 4} | options)


def test_pixels_and_labels_are_those_of_the_files(tmp_path):
    given = files()
    prepare(own(write_zip(given, tmp_path / "own.zip", top="anything/")), tmp_path / "zip")
    manifest = prepare(own(write_folder(dict(reversed(given.items())), tmp_path / "own")), tmp_path / "out")
    assert contents(tmp_path / "zip") == contents(tmp_path / "out")
    for split, folder, count in (("train", "train", 6), ("validation", "train", 3), ("test", "val", 2)):
        opened = open_split(tmp_path / "out", split, image_size=8)
        assert opened.classes == ["cat", "cat b"] and len(opened.images) == count
        for name, label, image in zip(manifest["splits"][split]["names"], opened.labels, opened.images, strict=True):
            content = given[f"{folder}/{opened.classes[label]}/{name}"]
            assert np.array_equal(image, to_array(content, name, 8, "adm")[0])


REFUSED = {
    "no class": ({"train/a.png": png(1)}, r"1 files do not belong there, the first is train/a\.png; .* <class>/<name>"),
    "an ending": ({"val/cat/a.gif": b"GIF89a"}, r"the first is val/cat/a\.gif; .* \.jpg, \.jpeg and \.png"),
    "another class": ({"val/cow/a.png": png(1)}, r"val/ has the class cow, which train/ has not; .*cat, cat b"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_belong_there_is_one_line(tmp_path, what):
    stray, said = REFUSED[what]
    with pytest.raises(DataError, match=said) as error:
        prepare(own(write_folder(files() | stray, tmp_path / "own")), tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_missing_folder_or_split_is_one_line(tmp_path):
    with pytest.raises(
        DataError, match=r"own is missing: data\.path must name a folder, or a zip, with train/<class>/"
    ):
        prepare(own(tmp_path / "own"), tmp_path / "out")
    train = {name: content for name, content in files().items() if not name.startswith("val/")}
    with pytest.raises(
        DataError, match=r"no images were found as val/<class>/<name>\.jpg \(there lie README\.txt, train"
    ):
        prepare(own(write_folder(train, tmp_path / "own")), tmp_path / "out")


def test_a_broken_image_ends_the_preparation_unless_a_part_will_do(tmp_path):
    folder = write_folder(files() | {"train/cat/b 1.png": png(1)[:-40]}, tmp_path / "own")
    with pytest.raises(DataError, match=r"cat/b 1\.png"):
        prepare(own(folder), tmp_path / "out")
    manifest = prepare(own(folder, partial=True), tmp_path / "part")
    assert list(manifest["dropped"]["train"]) == ["cat/b 1.png"]


def test_a_list_of_digests_has_to_be_of_all_images(tmp_path):
    given = files()
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in given.items() if "/" in name]
    folder = write_folder(given | {"SHA256SUMS": "\n".join(lines).encode()}, tmp_path / "own")
    prepare(own(folder), tmp_path / "out")
    write_folder({"SHA256SUMS": "\n".join(lines[1:]).encode()}, folder)
    with pytest.raises(DataError, match="SHA256SUMS"):
        prepare(own(folder), tmp_path / "again")
