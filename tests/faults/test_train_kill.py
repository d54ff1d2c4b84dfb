"""kill -9 anywhere in a training: the next start goes on, and makes the same bytes as if nothing had happened."""

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import VARIANTS
from training_trials import EVERY, STEPS, call, last_step, make_root, outcome, train

from vqlib import training

# What a run writes, in this order: six checkpoints, the model, the history.
WRITES = ["step 6", "step 12", "step 18", "step 24", "step 30", "step 36", "model.safetensors", "csv"]
CHOSEN = ("step 18", "model.safetensors", "csv")
POINTS = [(write, when) for write in WRITES for when in ("half written", "before the rename", "after the rename")]
RANDOM = 40


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_write(number: int, when: str) -> None:
    """Arm a kill at the numbered file that is written atomically."""
    fsync, replace, calls = os.fsync, os.replace, []

    def syncing(handle):
        if os.path.isfile(f"/proc/self/fd/{handle}"):
            calls.append(handle)
            if len(calls) == number and when == "half written":
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
                die()
        fsync(handle)

    def replacing(source, target):
        if len(calls) == number and when == "before the rename":
            die()
        replace(source, target)
        if len(calls) == number and when == "after the rename":
            die()

    os.fsync, os.replace = syncing, replacing


def die_at_event(number: int) -> None:
    """Arm a kill at the numbered call or return of any Python or C function."""
    left = number

    def count(*_):
        nonlocal left
        left -= 1
        if left == 0:
            die()

    sys.setprofile(count)


def note_steps(root: Path) -> None:
    """Keep the number of steps done in a file that outlives the process."""
    handle, original = os.open(root / "steps", os.O_RDWR | os.O_CREAT), training.batch_indices

    def noting(step: int, *arguments):
        os.pwrite(handle, b"%04d" % step, 0)
        return original(step, *arguments)

    training.batch_indices = noting


def killed_at_write(root: Path, variant: str, number: int, when: str) -> None:
    note_steps(root)
    train(root, variant, before=lambda: die_at_write(number, when))


def killed_at_event(root: Path, variant: str, number: int) -> None:
    note_steps(root)
    train(root, variant, before=lambda: die_at_event(number))


def killed_in_the_loop(root: Path, number: int) -> None:
    """The same, counted from the first step on: what a start imports makes a third of all calls."""
    at_first_step(lambda: die_at_event(number))
    train(root)


def at_first_step(do: Callable[[], None]) -> None:
    original = training.batch_indices

    def first(*arguments):
        training.batch_indices = original
        do()
        return original(*arguments)

    training.batch_indices = first


def count_events(root: Path) -> tuple[int, int]:
    """Calls and returns of a whole run, and those from its first step on."""
    total = before = 0

    def count(*_):
        nonlocal total
        total += 1

    def first():
        nonlocal before
        before = total

    at_first_step(first)
    train(root, before=lambda: sys.setprofile(count))
    sys.setprofile(None)
    return total, total - before


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The bytes that a run of each variant makes, made when they are first asked for."""

    class Made(dict):
        def __missing__(self, variant: str):
            root = make_root(tmp_path_factory.mktemp("uninterrupted") / variant)
            assert call(train, root, variant).code == 0
            self[variant] = outcome(root)
            return self[variant]

    return Made()


@pytest.fixture(scope="module")
def events(tmp_path_factory) -> tuple[int, int]:
    return call(count_events, make_root(tmp_path_factory.mktemp("events") / "root")).value


def goes_on(root: Path, variant: str) -> int:
    """Start again; the step that the run went on after, found to be at most one interval before the kill."""
    done, saved = int((root / "steps").read_bytes() or b"0") if (root / "steps").exists() else 0, last_step(root)
    assert done - saved <= EVERY
    ended = call(train, root, variant)
    assert ended.code == 0, ended
    assert "damaged" not in ended.errors
    assert f"going on after step {saved}" in ended.errors or (saved == 0 and "going on" not in ended.errors)
    return saved


@pytest.mark.parametrize(
    ("write", "when"),
    [pytest.param(*point, marks=() if point[0] in CHOSEN else pytest.mark.faults) for point in POINTS],
)
def test_killed_at_a_named_point(attempt, uninterrupted, tmp_path, write, when):
    root, number = make_root(tmp_path / "root"), WRITES.index(write) + 1
    with attempt("training", f"kill -9, {when}: checkpoints, model, history") as seen:
        assert call(killed_at_write, root, "vq", number, when).code == -signal.SIGKILL
        goes_on(root, "vq")
        assert outcome(root) == uninterrupted["vq"]
        seen("went on, same bytes")


@pytest.mark.parametrize(
    "number", [pytest.param(number, marks=pytest.mark.faults if number >= 4 else ()) for number in range(RANDOM)]
)
def test_killed_at_a_random_point(attempt, uninterrupted, events, tmp_path, number):
    variant = list(VARIANTS)[number % len(VARIANTS)]
    root = make_root(tmp_path / "root")
    with attempt("training", "kill -9 at a random function call, all variants") as seen:
        event = random.Random(number).randrange(1, events[0])
        ended = call(killed_at_event, root, variant, event)
        assert ended.code in (-signal.SIGKILL, 0)  # another variant may make fewer calls
        goes_on(root, variant)
        assert outcome(root) == uninterrupted[variant]
        seen("went on, same bytes")


@pytest.mark.faults
def test_killed_again_and_again(attempt, uninterrupted, events, tmp_path):
    root, draw, steps, loop = make_root(tmp_path / "root"), random.Random(1), [0], events[1]
    with attempt("training", "kill -9 of one run again and again until it ends") as seen:
        while call(killed_in_the_loop, root, draw.randrange(loop // 8, loop // 3)).code == -signal.SIGKILL:
            steps.append(last_step(root))
        assert len(steps) > 3
        assert steps == sorted(steps)
        assert outcome(root) == uninterrupted["vq"]
        seen("went on, same bytes")


def test_a_run_whose_notebook_failed_after_it_loses_one_interval_at_most(attempt, uninterrupted, tmp_path):
    root = make_root(tmp_path / "root")
    with attempt("training", "outputs lost after the last step, before the stage had ended") as seen:
        assert call(train, root).code == 0
        shutil.rmtree(root / "runs")  # as DVC does before it starts the stage again
        shutil.rmtree(root / "results")
        ended = call(train, root)
        assert f"going on after step {STEPS - STEPS % EVERY}" in ended.errors
        assert outcome(root) == uninterrupted["vq"]
        seen("went on, same bytes")
