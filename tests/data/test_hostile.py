"""Archives and pickles made to do harm: refused when they are listed, nothing written, no code run, little memory."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_up import jpeg, tiny, tiny_files, write_folder, write_zip
from made_up_imagenet import add, imagenet, tar_of, val_images, write_archives

from vqlib.data.sources import cifar10, matlab, resolve, tars, validation
from vqlib.errors import DataError
from vqlib.params import Data

NAME = "n00000001_1.JPEG"


def member(name: str = NAME, content: bytes = b"x", pax: dict | None = None, **header) -> bytes:
    """A tar of one good image and one member as it is asked for."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT) as archive:
        add(archive, "n00000001_0.JPEG", jpeg(0))
        add(archive, name, content, pax_headers=pax or {}, **header)
    return buffer.getvalue()


def with_size(content: bytes, field: bytes) -> bytes:
    """The tar with another size in the header of its second member, checksum mended."""
    at = content.index(NAME.encode())
    header = bytearray(content[at : at + 512])
    header[124:136], header[148:156] = field, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:at] + bytes(header) + content[at + 512 :]


HOSTILE = {
    "dot-dot": (member("../../" + NAME), "'../../n00000001_1.JPEG' does not belong there"),
    "absolute": (member("/tmp/" + NAME), "'/tmp/n00000001_1.JPEG' does not belong there"),
    "symbolic link": (member(type=tarfile.SYMTYPE, linkname="/etc/passwd", content=b""), "is a symbolic link"),
    "hard link": (member(type=tarfile.LNKTYPE, linkname="n00000001_0.JPEG", content=b""), "is a hard link"),
    "character device": (member(type=tarfile.CHRTYPE, devmajor=1, devminor=5, content=b""), "is a device"),
    "fifo": (member(type=tarfile.FIFOTYPE, content=b""), "is a fifo"),
    "sparse": (member(type=tarfile.GNUTYPE_SPARSE), "is a sparse file"),
    "giant name": (member("n" * 100_000 + ".JPEG"), "is a long name"),
    "duplicate": (member("n00000001_0.JPEG"), "n00000001_0.JPEG is in it twice"),
    "PAX path": (member(pax={"path": "../../" + NAME}), "a PAX header overrides"),
    "PAX size": (member(pax={"size": "99999999999"}), "a PAX header overrides"),
    "PAX sparse": (member(pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "a PAX header overrides"),
    "PAX of a gigabyte": (with_size(member(type=tarfile.XHDTYPE), b"07777777777\0"), "cut off"),
    "giant size": (with_size(member(), b"\x80" + bytes(5) + b"\xff" * 6), "stands no tar header"),
    "size past the end": (with_size(member(), b"77777777777\0"), "is cut off in 'n00000001_1.JPEG'"),
    "nested bomb": (member("n00000001.tar.gz", bytes(20_000)), "'n00000001.tar.gz' does not belong there"),
    "folder": (member("x/", type=tarfile.DIRTYPE, content=b""), "is a folder"),
    "something after the end": (member() + member(), "something follows after its end"),
}  # fmt: skip


@pytest.mark.parametrize("as_class", [True, False], ids=["class tar", "val"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tars_are_refused_before_anything_is_read(case, as_class, tmp_path, monkeypatch):
    content, message = HOSTILE[case]
    path = write_archives(tmp_path / "raw")
    if as_class:
        (path / "ILSVRC2012_img_train.tar").write_bytes(tar_of({"n00000001.tar": content}))
    else:
        content = content.replace(b"n00000001_", b"ILSVRC2012_val_")
        (path / "ILSVRC2012_img_val.tar").write_bytes(content)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    monkeypatch.setattr(tars, "read_range", lambda *_: pytest.fail("content was read"))
    with pytest.raises(DataError, match=r"ILSVRC2012_img_(train|val)\.tar") as caught:
        resolve(imagenet(path), tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    if as_class:
        assert message in str(caught.value)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_an_image_larger_than_any_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vqlib.data.sources.imagenet.MAX_BYTES", 100)
    with pytest.raises(DataError, match="bytes; there it has at most 100"):
        resolve(imagenet(write_archives(tmp_path / "raw")), tmp_path)


def test_harmless_pax_headers_and_a_leading_dot_pass(tmp_path):
    images = {f"./{name}": content for name, (_, content) in val_images().items()}
    path = write_archives(tmp_path / "raw")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, "./", b"", type=tarfile.DIRTYPE)
        for name, content in images.items():
            add(archive, name, content, mtime=1.25, pax_headers={"comment": "a tar of mine", "uname": "é"})
    (path / "ILSVRC2012_img_val.tar").write_bytes(buffer.getvalue())
    assert len(resolve(imagenet(path), tmp_path).items["test"]) == 6


def test_zip_bombs_are_refused_before_they_are_read(tmp_path):
    files = tiny_files()
    name = "val/val_annotations.txt"
    path = write_zip(files | {name: bytes(70 * 2**20)}, tmp_path / "bomb.zip")
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match=rf"{name} has 73,400,320 bytes; it may have at most 67,108,864"):
        resolve(tiny(path), tmp_path)


class Harm:
    """Unpickled by an ordinary reader, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def cifar(path, **options) -> Data:
    return Data(source="cifar10", path=str(path), image_size=8, validation_every=3, **options)


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes alike, as Python 2 did."""

    def save_string(self, value):
        content = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)

    dispatch = pickle._Pickler.dispatch | {bytes: save_string, str: save_string}


def batch(name: str, rows: int = 12) -> bytes:
    """A small batch as Python 2 wrote them."""
    draw = np.random.default_rng(len(name) + ord(name[-1]))
    pixels = draw.integers(0, 256, (rows, 3072), dtype=np.uint8)
    values = {b"data": pixels, b"labels": [n % 4 for n in range(rows)], b"filenames": [b"x.png"] * rows}
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(values)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.fixture
def batches(monkeypatch) -> dict[str, bytes]:
    contents = {name: batch(name) for name in cifar10.MD5}
    monkeypatch.setattr(cifar10, "MD5", {name: hashlib.md5(content).hexdigest() for name, content in contents.items()})
    return contents


def in_folder(contents: dict[str, bytes], folder):
    return write_folder({f"{cifar10.FOLDER}/{name}": content for name, content in contents.items()}, folder)


def in_archive(contents: dict[str, bytes], folder):
    files = {f"{cifar10.FOLDER}/{name}": content for name, content in contents.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            add(archive, name, content)
    return write_folder({cifar10.ARCHIVE: buffer.getvalue()}, folder)


@pytest.fixture
def taken_for_the_original(monkeypatch):
    """The archive in the folder that is given."""

    def take(folder):
        content = (folder / cifar10.ARCHIVE).read_bytes()
        monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())
        return folder

    return take


def test_cifar10_is_the_same_from_archive_and_folder(batches, taken_for_the_original, tmp_path):
    folders = in_folder(batches, tmp_path / "a"), taken_for_the_original(in_archive(batches, tmp_path / "b"))
    found = [resolve(cifar(folder), tmp_path) for folder in folders]
    assert found[0].items == found[1].items and len(found[0].items["test"]) == 12
    item = found[0].items["test"][4]
    raw = pickle.loads(batches["test_batch"], encoding="bytes")
    assert item.key == "automobile/test_batch_00005.png"
    expected = raw[b"data"][5].reshape(3, 32, 32)
    assert np.array_equal(np.asarray(found[0].read(item.place)), np.moveaxis(expected, 0, -1))


@pytest.mark.parametrize("make", [in_folder, in_archive])
def test_a_malicious_pickle_in_the_place_of_cifar10_is_not_read(
    make, batches, taken_for_the_original, tmp_path, monkeypatch
):
    harm = pickle.dumps(Harm(tmp_path / "harmed"))
    folder = make(batches | {"data_batch_3": harm}, tmp_path / "raw")
    if make is in_archive:
        taken_for_the_original(folder)
    with pytest.raises(DataError, match="the md5 of data_batch_3 is not that of the original, so it is not read"):
        resolve(cifar(folder), tmp_path)
    monkeypatch.setitem(
        cifar10.MD5, "data_batch_3", hashlib.md5(harm).hexdigest()
    )  # and were it read, it could do nothing
    with pytest.raises(DataError, match=r"data_batch_3 is no batch of CIFAR-10 .*posix\.mkdir does not belong"):
        resolve(cifar(folder), tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_cifar10_missing_in_whole_or_part_is_one_line(batches, tmp_path):
    with pytest.raises(
        DataError, match=r"neither cifar-10-python.tar.gz nor cifar-10-batches-py is there.*data.download"
    ):
        resolve(cifar(tmp_path / "raw"), tmp_path)
    batches.pop("test_batch")
    with pytest.raises(DataError, match="5 of 6 batches are there; test_batch is missing"):
        resolve(cifar(in_folder(batches, tmp_path / "a")), tmp_path)
    line = r"cifar-10-python.tar.gz: its md5 is \w{32}, that of the original is c58f30108f718f92721af3b95e74349a"
    with pytest.raises(DataError, match=line):
        resolve(cifar(in_archive(batches, tmp_path / "b")), tmp_path)


def bomb(name: str, size: int, kind: bytes = b"0") -> bytes:
    """A small .tar.gz whose one member has ``size`` bytes of zeros."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = deflate.compress(info.tobuf(tarfile.GNU_FORMAT)) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(2**24)) + deflate.flush(zlib.Z_FULL_FLUSH)  # stands alone, so it can be repeated
    end = deflate.compress(bytes(1024)) + deflate.flush()
    return b"\x1f\x8b\x08" + bytes(6) + b"\x03" + start + block * (size // 2**24) + end + bytes(8)


def inflating_mat(size: int) -> bytes:
    """A meta.mat whose one variable has ``size`` bytes."""
    elements = (6, struct.pack("<II", 6, 0)), (5, struct.pack("<ii", 1, 1)), (1, b"synsets\0"), (2, bytes(size))
    body = b"".join(struct.pack("<II", kind, len(content)) + content for kind, content in elements)
    packed = zlib.compress(struct.pack("<II", 14, len(body)) + body, 9)
    return b"MATLAB 5.0".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed


def devkit_of(meta: bytes) -> dict[str, bytes]:
    return {f"{validation.DEVKIT}/{validation.META}": meta, f"{validation.DEVKIT}/{validation.TRUTH}": b"1\n"}


def bombs(large: int, small: int) -> dict[str, tuple[str, dict[str, bytes], str]]:
    """Source, files and message; ``large`` and ``small``: bytes that an archive and a .mat file inflate to."""
    long = "././@LongLink", large, tarfile.GNUTYPE_LONGNAME
    is_other, is_large = "its md5 is", "has more than 33,554,432 bytes inside"
    return {
        "CIFAR-10, long name": ("cifar10", {cifar10.ARCHIVE: bomb(*long)}, is_other),
        "CIFAR-10, giant member": ("cifar10", {cifar10.ARCHIVE: bomb("x", 4 * large)}, is_other),
        "devkit, long name": ("imagenet", {validation.DEVKIT_TAR: bomb(*long)}, is_large),
        "devkit, giant member": ("imagenet", {validation.DEVKIT_TAR: bomb("x", 4 * large)}, is_large),
        "meta.mat": ("imagenet", devkit_of(inflating_mat(small)), "not a readable MATLAB file"),
    }


def write_bomb(source: str, files: dict[str, bytes], folder: Path) -> Path:
    """Beside good archives, where those belong to the source."""
    if source == "imagenet":
        write_archives(folder)
        (folder / validation.WNIDS).unlink()
    return write_folder(files, folder)


BOMBS = bombs(2**26, matlab.MAX_BYTES + 8)


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_are_refused_in_one_line_before_they_are_decompressed(case, tmp_path, monkeypatch):
    source, files, message = BOMBS[case]
    path = write_bomb(source, files, tmp_path / "raw")
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("it is opened"))
    with pytest.raises(DataError) as caught:
        resolve(Data(source=source, path=str(path), image_size=8, partial=True), tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_many_variables_of_a_mat_file_have_one_limit():
    small = inflating_mat(matlab.MAX_BYTES // 3)
    with pytest.raises(DataError, match="bytes belong to an element"):
        matlab.read_structs(small + 3 * small[128:], "other")


def test_an_uncompressed_mat_file_has_the_same_limit():
    with pytest.raises(DataError, match="more than 4,194,304 bytes"):
        matlab.read_structs(bytes(matlab.MAX_BYTES + 1), "synsets")
