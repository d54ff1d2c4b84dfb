"""Parquet shards hold images in no order: each row group is read as few times as can be, whatever happens meanwhile."""

from collections import Counter

import made_up_imagenet
import pytest
from made_up import contents, jpeg, killed, write_folder
from made_up_imagenet import imagenet, train_images, tree_files, write_parquet

from vqlib.data import assembly, open_split, prepare
from vqlib.data.sources import parquet


@pytest.fixture
def small_jobs(monkeypatch):
    """Several of them from a few images."""
    monkeypatch.setattr(assembly, "CHUNK", 4)


@pytest.fixture
def reads(monkeypatch) -> Counter:
    """How often the images of each (shard, row group) are read and decompressed, from now on."""
    counts, original = Counter(), parquet._read_group

    def counting(file, path, group, columns):
        if columns == ["image.bytes"]:
            counts[str(path).rpartition("/")[2], group] += 1
        return original(file, path, group, columns)

    parquet._images.cache_clear()
    monkeypatch.setattr(parquet, "_read_group", counting)
    return counts


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    prepare(imagenet(write_folder(tree_files(), folder / "raw")), folder / "out", root=folder)
    return contents(folder / "out")


def test_a_row_group_is_read_once_for_each_split_that_has_images_in_it(small_jobs, reads, tree, tmp_path):
    prepare(imagenet(write_parquet(tmp_path / "raw", rows=2)), tmp_path / "out", root=tmp_path, workers=1)
    assert contents(tmp_path / "out") == tree
    assert len(reads) == 14  # 2 shards of 9 training images, 2 of 3 for validation, by twos
    assert all(count <= (2 if shard.startswith("train") else 1) for (shard, _), count in reads.items())


def test_few_images_are_read_more_than_once_for_the_estimate(small_jobs, reads, tmp_path):
    said = []
    data = imagenet(write_parquet(tmp_path / "raw", rows=2))
    prepare(data, tmp_path / "out", root=tmp_path, workers=1, progress=said.append)
    assert sum(reads.values()) <= 2 * 10 + 4 + 1 and any("to decode" in line for line in said)


@pytest.mark.parametrize(
    ("call", "number", "when"),
    [("pwrite", 7, "before"), ("fdatasync", 4, "after"), ("write", 3, "half"), ("replace", 2, "after"),
     ("replace", 7, "before")],
)  # fmt: skip
def test_killed_and_resumed(small_jobs, tree, tmp_path, call, number, when):
    data = imagenet(write_parquet(tmp_path / "raw", rows=2))
    killed(lambda: prepare(data, tmp_path / "out", root=tmp_path, workers=1), call, number, when)
    prepare(data, tmp_path / "out", root=tmp_path, workers=1)
    assert contents(tmp_path / "out") == tree


def test_finished_jobs_are_not_done_again(small_jobs, reads, tree, tmp_path):
    data = imagenet(write_parquet(tmp_path / "raw", rows=2))
    prepare(data, tmp_path / "out", root=tmp_path, workers=1)
    (tmp_path / "out" / "manifest.json").unlink()
    damaged = bytearray((tmp_path / "out" / "train.u8").read_bytes())
    damaged[8 * 8 * 3 * 5] ^= 4
    (tmp_path / "out" / "train.u8").write_bytes(damaged)
    reads.clear()
    parquet._images.cache_clear()
    prepare(data, tmp_path / "out", root=tmp_path, workers=1)
    assert contents(tmp_path / "out") == tree
    assert 0 < sum(reads.values()) <= 4  # one job's


def test_a_bad_image_gives_what_it_gives_in_a_tree(small_jobs, monkeypatch, tmp_path):
    images = train_images() | {"n00000001/n00000001_7.JPEG": jpeg(1)[:-60]}
    monkeypatch.setattr(made_up_imagenet, "train_images", lambda: images)
    for name, path in (
        ("a", write_parquet(tmp_path / "raw", rows=2)),
        ("b", write_folder(tree_files(), tmp_path / "t")),
    ):
        manifest = prepare(imagenet(path), tmp_path / name, root=tmp_path, workers=1)
        assert manifest["dropped"]["train"].keys() == {"n00000001/n00000001_7.JPEG"}
        assert len(open_split(tmp_path / name, "train").images) == 11
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
