"""Checkpoints on disk: what is kept, what a damaged one does, which run they belong to."""

import os
import shutil

import pytest
import torch
from support import make_experiment, make_run

from vqlib.checkpoints import State, checkpoint_folder, forget, load_state, save_state
from vqlib.provenance import determinants

CPU = torch.device("cpu")


def state(step: int) -> State:
    tensors = {
        "a/weight": torch.full((3, 2), float(step)),
        "b/count": torch.tensor(step),
        "c": torch.rand(2).bfloat16(),
    }
    return State(step, tensors, [[{"step": step, "loss": 0.1 + 0.2}], step, float("inf")])


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_comes_back_to_the_bit(tmp_path):
    before = state(7)
    save_state(tmp_path, before)
    after = load_state(tmp_path, warn=pytest.fail)
    assert (after.step, after.record) == (before.step, before.record)
    assert after.tensors.keys() == before.tensors.keys()
    for key, value in before.tensors.items():
        assert after.tensors[key].dtype == value.dtype
        assert torch.equal(after.tensors[key], value)


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert load_state(tmp_path / "nowhere", warn=pytest.fail) is None


def test_the_last_three_are_kept(tmp_path):
    for step in (5, 50, 500, 99_999, 100_000):
        save_state(tmp_path, state(step))
    assert [int(name[:9]) for name in names(tmp_path)] == [500, 99_999, 100_000]
    assert load_state(tmp_path, warn=pytest.fail).step == 100_000


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [flip_a_bit, lambda content: content[:-1], lambda content: b"", lambda content: content + b"\0"],
    ids=["bit", "truncated", "empty", "longer"],
)  # fmt: skip
def test_a_damaged_newest_one_falls_back_to_the_one_before_and_says_so(tmp_path, damage):
    for step in (1, 2, 3):
        save_state(tmp_path, state(step))
    newest = max(tmp_path.iterdir())
    newest.write_bytes(damage(newest.read_bytes()))
    said = []
    assert load_state(tmp_path, warn=said.append).step == 2
    assert len(said) == 1
    assert "\n" not in said[0]
    assert str(newest) in said[0]
    assert "damaged" in said[0]


def test_when_all_are_damaged_the_run_starts_anew_and_each_is_said(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, state(step))
    for path in tmp_path.iterdir():
        path.write_bytes(flip_a_bit(path.read_bytes()))
    said = []
    assert load_state(tmp_path, warn=said.append) is None
    assert len(said) == 2


def test_damaged_ones_do_not_take_the_place_of_those_saved_after_them(tmp_path):
    for step in (1000, 1500, 2000):
        save_state(tmp_path, state(step))
    for path in tmp_path.iterdir():
        path.write_bytes(flip_a_bit(path.read_bytes()))
    assert load_state(tmp_path, warn=lambda line: None) is None  # the run starts anew,
    for step in (500, 1000):
        save_state(tmp_path, state(step))
    assert load_state(tmp_path, warn=pytest.fail).step == 1000  # is killed, and goes on from its own last
    assert len([name for name in names(tmp_path) if name.endswith(".damaged")]) == 3


def test_what_a_killed_write_leaves_behind_is_not_read(tmp_path):
    save_state(tmp_path, state(1))
    (tmp_path / ".000000002-abc.safetensors.99.tmp").write_bytes(b"half")
    (tmp_path / ".lock").write_text("99")
    assert load_state(tmp_path, warn=pytest.fail).step == 1


def test_a_full_disk_leaves_the_old_checkpoints(tmp_path, monkeypatch):
    save_state(tmp_path, state(1))
    before = names(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(tmp_path, state(2))
    assert names(tmp_path) == before


def test_states_of_a_run_that_ended_well_are_removed(tmp_path, monkeypatch):
    monkeypatch.delenv("VQLIB_PIPELINE", raising=False)
    folder = tmp_path / "key"
    save_state(folder, state(1))
    forget(folder)
    forget(folder)
    assert not folder.exists()


def test_in_a_pipeline_they_wait_until_the_notebook_has_ended_well(tmp_path, monkeypatch):
    folder, later = tmp_path / "key", tmp_path / "later"
    monkeypatch.setenv("VQLIB_PIPELINE", str(later))
    save_state(folder, state(1))
    forget(folder)
    assert load_state(folder, warn=pytest.fail).step == 1
    assert later.read_text().split("\n")[0] == str(folder)


def test_a_checkpoint_of_another_run_or_step_is_refused(tmp_path):
    save_state(tmp_path / "mine", state(1))
    (mine,) = (tmp_path / "mine").iterdir()
    (tmp_path / "other").mkdir()
    shutil.copy(mine, tmp_path / "other" / mine.name)
    mine.rename(mine.with_name(mine.name.replace("000000001", "000000007")))
    for folder in ("mine", "other"):
        said = []
        assert load_state(tmp_path / folder, warn=said.append) is None
        assert len(said) == 1


CHANGES = {
    "learning rate": {"run": make_run(learning_rate=2e-3)},
    "seed": {"run": make_run(seed=1)},
    "variant": {"run": make_run("projected")},
    "weights": {"run": make_run().model_copy(
        update={"variant": make_run().variant.model_copy(update={"weights": {"commitment_loss": 0.25}})})},
    "steps": {"experiment": make_experiment(steps=5)},
    "batch size": {"experiment": make_experiment(batch_size=5)},
    "data": {"data_digest": "1"},
    "precision": {"precision": torch.bfloat16},
    "device": {"device": torch.device("cuda")},
}  # fmt: skip


def folder_of(root, **changes):
    facts = {"experiment": make_experiment(), "run": make_run(), "data_digest": "0", "device": CPU,
             "precision": torch.float32, **changes}  # fmt: skip
    return checkpoint_folder(root, determinants(**facts))


@pytest.mark.parametrize("what", CHANGES)
def test_changed_parameters_and_data_have_other_checkpoints(tmp_path, what):
    assert folder_of(tmp_path) == folder_of(tmp_path)
    assert folder_of(tmp_path, **CHANGES[what]) != folder_of(tmp_path)


def test_what_does_not_change_a_bit_has_the_same_checkpoints(tmp_path):
    asked = make_experiment(device="auto", precision="auto", learning_rate=5e-4)  # the run has its own rate
    assert folder_of(tmp_path, experiment=asked) == folder_of(tmp_path)


def test_other_threads_have_the_same_checkpoints(tmp_path):
    before, threads = folder_of(tmp_path), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert folder_of(tmp_path) == before
    finally:
        torch.set_num_threads(threads)


def test_changed_code_has_other_checkpoints(tmp_path, monkeypatch):
    before = folder_of(tmp_path)
    monkeypatch.setattr("vqlib.provenance.TRAINING_CODE", ("vqlib/params.py",))
    assert folder_of(tmp_path) != before


def test_the_folder_can_lie_elsewhere(tmp_path, monkeypatch):
    assert folder_of(tmp_path).parent == tmp_path / "checkpoints"
    monkeypatch.setenv("VQLIB_CHECKPOINTS", str(tmp_path / "big disk"))
    assert folder_of(tmp_path / "repository").parent == tmp_path / "big disk"
