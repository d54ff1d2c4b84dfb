"""A tree of files, in a folder or inside a zip that is never extracted, seen alike."""

import functools
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vqlib.data.images import BadImageError
from vqlib.data.sources import MAX_BYTES, Item
from vqlib.data.sources.digests import LISTS, UNCHECKED, compare, fits, listed_digests
from vqlib.errors import DataError
from vqlib.progress import Progress, Say

IMAGES = ("train/", "val/")  # where they lie
ENDINGS = (".jpeg", ".jpg", ".png")  # of their names, in capitals or not
MAX_LIST = 2**28  # bytes of a list of digests; that of ILSVRC2012 has 140 MB


@dataclass(frozen=True)
class Tree:
    """The files under a top folder. Names are relative to it, with ``/``."""

    path: Path
    top: str  # what stands before each name: "" or "tiny-imagenet-200/"
    sizes: dict[str, int]  # bytes of every file
    digests: dict[str, str]  # of the files that SHA256SUMS or MD5SUMS lists, where there is one at the top
    reader: Callable[[str], bytes]

    def read(self, name: str) -> bytes:
        self._check_size(name)
        return self.reader(self.top + name)

    def item(self, wnid: str, name: str, file: str) -> Item:
        self._check_size(file)
        return Item(wnid, name, str(self.sizes[file]), (self.top + file, self.digests.get(file, "")))

    @property
    def read_place(self) -> Callable[[tuple[str, str]], bytes]:
        """``Source.read`` for the places of ``item``."""
        return functools.partial(_read_checked, self.reader)

    def _check_size(self, file: str) -> None:
        if self.sizes[file] > MAX_BYTES:
            raise DataError(f"{self.path}: {file} has {self.sizes[file]:,} bytes; it may have at most {MAX_BYTES:,}")


def open_tree(path: Path, inside: str, say: Say) -> Tree:
    """List a folder or a zip. Its top is where ``inside`` (such as ``train/``) lies: at once, or one folder down.

    Raises:
        DataError: it cannot be read as what it is, ``inside`` is not there, or a list of digests is one of other files.
    """
    sizes = _folder_sizes(path, say) if path.is_dir() else _zip_sizes(path)
    at_top = re.compile(rf"((?:[^/]+/)??){re.escape(inside)}")
    tops = {match[1] for match in map(at_top.match, sizes) if match}
    if len(tops) != 1:
        found = sorted({name.split("/")[0] for name in sizes})
        raise DataError(
            f"{path}: expected one folder {inside} at the top or one folder down, found {len(tops)}; "
            f"at the top lie {', '.join(found[:5]) or 'no files'}"
        )
    top = tops.pop()
    under = {name.removeprefix(top): size for name, size in sizes.items() if name.startswith(top)}
    tree = Tree(path, top, under, {}, functools.partial(read_file if path.is_dir() else read_member, str(path)))
    for listing in LISTS:
        if listing in under:
            tree.digests.update(listed_digests(_lines(tree, listing), path / top / listing))
    if tree.digests:
        images = {name for name in under if name.startswith(IMAGES) and name.lower().endswith(ENDINGS)}
        lists = " and ".join(name for name in LISTS if name in under)
        others = under.keys() - images  # may be listed or not
        compare(
            (name for name in tree.digests if name.startswith(IMAGES) and name not in others),
            images,
            f"{path / top}: {lists}",
        )
        say(f"{path}: each image is checked against {lists} as it is read")
    elif path.is_dir():  # a zip has checksums of its own
        say(f"{path}: {UNCHECKED}")
    return tree


def _read_checked(reader: Callable[[str], bytes], place: tuple[str, str]) -> bytes:
    """Raises BadImageError for a file that does not have the digest listed for it."""
    name, digest = place
    content = reader(name)
    if digest and not fits(content, digest):
        raise BadImageError("its digest is another than the one listed")
    return content


def read_file(folder: str, name: str) -> bytes:
    """A file of a folder, no more of it than an image may have."""
    with open(os.path.join(folder, name), "rb") as file:
        return file.read(MAX_BYTES)


def read_member(path: str, name: str) -> bytes:
    """A member of a zip, its CRC checked, and never more bytes than the zip says that it has.

    Raises:
        DataError: the member is damaged.
    """
    archive = _archive(path, os.stat(path).st_mtime_ns)
    info = archive.getinfo(name)
    try:
        with archive.open(info) as member:
            content = member.read(info.file_size + 1)
    except Exception as error:  # damaged bytes make zipfile raise nearly anything
        raise DataError(f"{path} is damaged or not readable at {name} ({error}); get the file again") from None
    if len(content) != info.file_size:
        raise DataError(
            f"{path} is damaged: {name} has {len(content):,} of {info.file_size:,} bytes; get the file again"
        )
    return content


@functools.lru_cache(maxsize=2)
def _archive(path: str, modified: int) -> zipfile.ZipFile:
    """An open zip, kept open; ``modified`` makes a replaced file another one."""
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # damaged bytes make zipfile raise nearly anything
        size = os.path.getsize(path)
        raise DataError(f"{path} ({size:,} bytes) is no whole zip file ({error}); get the file again") from None


def _zip_sizes(path: Path) -> dict[str, int]:
    sizes = {}
    for info in _archive(str(path), path.stat().st_mtime_ns).infolist():
        if info.is_dir() or _is_clutter(info.filename):
            continue
        if info.filename in sizes:
            raise DataError(f"{path}: {info.filename} is in it twice; get the file again")
        sizes[info.filename] = info.file_size
    return sizes


def _lines(tree: Tree, name: str) -> Iterator[bytes]:
    """Of a list of digests."""
    if tree.sizes[name] > MAX_LIST:
        raise DataError(f"{tree.path}: {name} has {tree.sizes[name]:,} bytes; a list has at most {MAX_LIST:,}")
    if tree.path.is_dir():
        with open(tree.path / (tree.top + name), "rb") as file:
            yield from file
    else:
        yield from tree.reader(tree.top + name).splitlines()


def _folder_sizes(path: Path, say: Say) -> dict[str, int]:
    """Links to folders are followed, each folder once."""
    sizes, seen = {}, set()
    bar = Progress(f"listed {path.name}", 1, "folders", to=say)
    for folder, folders, files in os.walk(path, onerror=_cannot_be_read, followlinks=True):
        state = os.stat(folder)
        if (state.st_dev, state.st_ino) in seen:
            raise DataError(f"{path}: {os.path.relpath(folder, path)} is a link to a folder that is there once already")
        seen.add((state.st_dev, state.st_ino))
        folders[:] = [name for name in folders if not _is_clutter(name)]
        prefix = "" if folder == os.fspath(path) else os.path.relpath(folder, path).replace(os.sep, "/") + "/"
        for file in files:
            if _is_clutter(file):
                continue
            if not os.path.isfile(os.path.join(folder, file)):
                raise DataError(f"{path}: {prefix}{file} is not a regular file")
            sizes[prefix + file] = os.path.getsize(os.path.join(folder, file))
        bar.total += len(folders)
        bar.add(1)
    bar.close()
    return sizes


def _cannot_be_read(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read ({error.strerror}): make it readable, or remove it") from None


def _is_clutter(name: str) -> bool:
    """Files that desktops leave behind."""
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db") for part in name.split("/"))
