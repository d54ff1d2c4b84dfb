"""Damaged, foreign and hostile files in the place of checkpoints and models: passed over or refused, never executed."""

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
import time
from functools import partial
from pathlib import Path

import pytest
from training_trials import EVERY, Ended, call, die_after_saving, make_root, one_line, outcome, states, train

MARKER = "pickle was here"
MOST_MEMORY, MOST_SECONDS = 200 * 2**20, 5
KEPT = (2 * EVERY, 3 * EVERY, 4 * EVERY)  # steps of the checkpoints that the damage meets; the last is damaged


class Hostile:
    def __reduce__(self):
        return os.mkdir, (MARKER,)


def truncated(length: int):
    return lambda content: content[:length]


def flipped(seed: int, low: float = 0, high: float = 1):
    """One bit somewhere between two places, given as shares of the file."""

    def damage(content: bytes) -> bytes:
        place = int(random.Random(seed).uniform(low, high) * len(content))
        return content[:place] + bytes([content[place] ^ 1 << seed % 8]) + content[place + 1 :]

    return damage


def overwritten(sector: int, byte: int):
    return lambda content: content[: sector * 512] + bytes([byte]) * 512 + content[(sector + 1) * 512 :]


def header_length(length: int):
    return lambda content: struct.pack("<Q", length) + content[8:]


def header(change):
    """A whole file whose header is changed."""

    def damage(content: bytes) -> bytes:
        size = int.from_bytes(content[:8], "little")
        text = json.dumps(change(json.loads(content[8 : 8 + size]))).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]

    return damage


def only(text: bytes):
    return lambda content: struct.pack("<Q", len(text)) + text


CONTENTS = {
    **{f"one bit flipped, {n}": flipped(n) for n in range(30)},
    **{f"one bit flipped in the header, {n}": flipped(n, high=0.001) for n in range(8)},
    **{
        f"truncated to {n} bytes": truncated(n) for n in (0, 1, 7, 8, 9, 100, 1000, 4096, -1, -2, -8, -100, -512, -4096)
    },
    **{f"sector {n} is {byte:#x}": overwritten(n, byte) for n in (0, 1, 2, 9, 33, 60) for byte in (85, 255)},
    "one byte longer": lambda content: content + b"\0",
    "twice": lambda content: content * 2,
    "zeros": lambda content: bytes(len(content)),
    "HTML": lambda content: b"<!DOCTYPE html><title>404</title>",
    "PNG": lambda content: b"\x89PNG\r\n\x1a\n" + content,
    "zip": lambda content: b"PK\x03\x04" + content,
    "text": lambda content: b"version https://git-lfs.github.com/spec/v1\n",
    "pickle": lambda content: pickle.dumps(Hostile()),
    "header of 2^63 bytes": header_length(2**63),
    "header of 2^40 bytes": header_length(2**40),
    "header of 100 MB": header_length(10**8),
    "header of 0 bytes": header_length(0),
    "JSON too deep": only(b"[" * 100_000),
    "JSON of another kind": only(b"[1]"),
    "no metadata": header(lambda fields: {k: v for k, v in fields.items() if k != "__metadata__"}),
    "tensor beyond the end": header(lambda f: f | {"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 2**40]}}),
    "shape of 2^62": header(lambda f: {k: v | {"shape": [2**62]} if "shape" in v else v for k, v in f.items()}),
}
# The digest in a model is one of its weights; the few hundred bytes that describe it have none.
OF_MODELS = CONTENTS | {f"one bit flipped, {n}": flipped(n, low=0.5) for n in range(30)}
# These would pass a check of the digest, since their name has it.
SIGNED = (
    "pickle", "header of 2^63 bytes", "header of 2^40 bytes", "JSON too deep", "JSON of another kind", "no metadata",
    "tensor beyond the end", "shape of 2^62", "HTML", "zeros",
)  # fmt: skip
SOME = (
    "one bit flipped, 0", "one bit flipped in the header, 0", "truncated to 0 bytes", "pickle", "header of 2^63 bytes",
)  # fmt: skip


def written(name: str, signed: bool):
    def damage(newest: Path) -> Path:
        original = newest.read_bytes()
        content = CONTENTS[name](original)
        assert content != original
        newest.unlink()
        if signed:
            newest = newest.with_name(f"{newest.name[:9]}-{hashlib.sha256(content).hexdigest()[:32]}.safetensors")
        newest.write_bytes(content)
        return newest

    return damage


def renamed_to_another_step(newest: Path) -> Path:
    return newest.rename(newest.with_name("000000039" + newest.name[9:]))


def of_another_run(newest: Path) -> Path:
    from vqlib.checkpoints import State, save_state

    folder = newest.parent.with_name("0" * 20)
    save_state(folder, State(int(newest.name[:9]), {}, []))
    (other,) = folder.glob("*.safetensors")
    newest.unlink()
    return other.rename(newest.parent / other.name)


def a_folder(newest: Path) -> Path:
    newest.unlink()
    newest.mkdir()
    return newest


def a_pipe(newest: Path) -> Path:
    newest.unlink()
    os.mkfifo(newest)
    return newest


def a_link_to_nowhere(newest: Path) -> Path:
    newest.unlink()
    newest.symlink_to("nowhere")
    return newest


def an_endless_device(newest: Path) -> Path:
    newest.unlink()
    newest.symlink_to("/dev/zero")
    return newest


def a_gigabyte_of_holes(newest: Path) -> Path:
    os.truncate(newest, 2**30)
    return newest


DAMAGES = {
    **{name: written(name, signed=False) for name in CONTENTS},
    **{f"{name}, with a digest that fits": written(name, signed=True) for name in SIGNED},
    **{
        damage.__name__.replace("_", " "): damage
        for damage in (renamed_to_another_step, of_another_run, a_folder, a_pipe, a_link_to_nowhere,
                       an_endless_device, a_gigabyte_of_holes)
    },
}  # fmt: skip
SOME_DAMAGES = (*SOME, "pickle, with a digest that fits", "renamed to another step", "of another run")


def load(folder: Path) -> tuple[int, list[str], float]:
    from vqlib.checkpoints import load_state

    os.chdir(folder.parent)
    said, began = [], time.process_time()
    state = load_state(folder, said.append)
    return state.step if state else 0, said, time.process_time() - began


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> Path:
    """A repository in which a run was killed when it had three checkpoints."""
    root = make_root(tmp_path_factory.mktemp("interrupted") / "root")
    call(train, root, "vq", 1e-3, partial(die_after_saving, KEPT[-1]))
    assert [int(path.name[:9]) for path in states(root)] == list(KEPT)
    return root


@pytest.fixture
def root(interrupted, tmp_path) -> Path:
    return shutil.copytree(interrupted, tmp_path / "root", symlinks=True)


def harmless(ended: Ended, folder: Path) -> None:
    assert not (folder / MARKER).exists(), "code of the file was run"
    assert ended.grown < MOST_MEMORY


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SOME_DAMAGES else pytest.mark.faults) for name in DAMAGES]
)
def test_a_damaged_newest_checkpoint_is_passed_over(attempt, root, name):
    newest, good = list(states(root))[-1], dict(list(states(root).items())[:-1])
    with attempt("training", "newest checkpoint damaged, foreign or hostile") as seen:
        newest = DAMAGES[name](newest)
        ended = call(load, newest.parent)
        assert ended.code == 0, ended
        step, said, seconds = ended.value
        assert step == KEPT[-2]
        assert len(said) == 1
        assert "\n" not in said[0]
        assert f"{newest} is damaged" in said[0]
        assert seconds < MOST_SECONDS
        harmless(ended, newest.parent.parent)
        assert {path: path.read_bytes() for path in good} == good
        seen("the one before is used, and it is said in one line")


@pytest.mark.parametrize(
    "name",
    ["one bit flipped, 0", *(pytest.param(name, marks=pytest.mark.faults) for name in (
        "truncated to 0 bytes", "pickle, with a digest that fits", "renamed to another step", "of another run"))],
)  # fmt: skip
def test_a_run_goes_on_from_the_one_before(attempt, root, tmp_path, name):
    whole = make_root(tmp_path / "whole")
    assert call(train, whole).code == 0
    with attempt("training", "run resumed over a damaged checkpoint") as seen:
        newest = DAMAGES[name](list(states(root))[-1])
        ended = call(train, root)
        assert ended.code == 0, ended
        assert f"checkpoint {newest} is damaged" in ended.errors
        assert f"going on after step {KEPT[-2]}" in ended.errors
        assert outcome(root) == outcome(whole)
        seen("went on, same bytes")


def open_model(path: Path) -> tuple[str, float]:
    from vqlib.errors import DataError
    from vqlib.model import load_model

    os.chdir(path.parent)
    began = time.process_time()
    with pytest.raises(DataError) as caught:
        load_model(path)
    return str(caught.value), time.process_time() - began


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> bytes:
    root = make_root(tmp_path_factory.mktemp("model") / "root")
    assert call(train, root).code == 0
    return (root / "runs/smoke/vq-0/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SOME else pytest.mark.faults) for name in CONTENTS]
)
def test_a_damaged_model_is_refused(attempt, model, tmp_path, name):
    path = tmp_path / "model.safetensors"
    with attempt("training", "model.safetensors damaged, foreign or hostile") as seen:
        path.write_bytes(OF_MODELS[name](model))
        ended = call(open_model, path)
        assert ended.code == 0, ended
        message, seconds = ended.value
        assert "\n" not in message
        assert f"{path}: not a model of this project, or damaged" in message
        assert seconds < MOST_SECONDS
        harmless(ended, tmp_path)
        seen("refused in one line")


OPTIONS = {"name": "x", "options": {}, "weights": {}}
LIES = {
    "a bottleneck that is another module": {"variant": {**OPTIONS, "bottleneck": "__init__"}},
    "a bottleneck outside": {"variant": {**OPTIONS, "bottleneck": "..antigravity"}},
    "an option that is none": {"variant": {**OPTIONS, "bottleneck": "vq", "options": {"device": "meta"}}},
    "a network that is a list": {"network": [1]},
}


@pytest.mark.parametrize("name", LIES)
def test_a_model_that_lies_about_itself_is_refused(attempt, model, tmp_path, name):
    path = tmp_path / "model.safetensors"
    lie = header(lambda fields: fields | {"__metadata__": {
        "vqlib": json.dumps(json.loads(fields["__metadata__"]["vqlib"]) | LIES[name])}})  # fmt: skip
    with attempt("training", "model.safetensors that lies about itself") as seen:
        path.write_bytes(lie(model))
        ended = call(open_model, path)
        assert ended.code == 0, ended
        assert "\n" not in ended.value[0]
        harmless(ended, tmp_path)
        seen("refused in one line")


def test_the_message_of_a_damaged_model_reaches_the_one_who_evaluates(root, model):
    folder = root / "runs/smoke/vq-0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(OF_MODELS["one bit flipped, 3"](model))
    assert "not a model of this project, or damaged" in one_line(call(evaluate, root))


def evaluate(root: Path) -> None:
    from support import make_experiment, make_run

    from vqlib.runs import evaluate_run

    evaluate_run(make_experiment(root), make_run())
