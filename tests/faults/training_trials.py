"""A small training that can be killed, starved and looked at: processes forked from one that has imported torch."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vqlib.data.reader import chunk_digest, labels_digest, seal
from vqlib.errors import UserError
from vqlib.files import json_bytes
from vqlib.params import ROOT

STEPS, EVERY = 40, 6  # checkpoints after steps 6, 12, ... 36
SPLITS = {"train": 44, "validation": 7, "test": 18}

forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(["vqlib.runs"])


class Ended(NamedTuple):
    code: int  # exit status; -9 after kill -9, 2 after a UserError, 1 after any other
    value: Any  # what the function returned, or the error's message
    errors: str  # standard error
    grown: int  # peak of resident memory above its start, bytes


def call(function: Callable, *arguments) -> Ended:
    """``function(*arguments)`` in a fresh fork that has torch and has computed nothing yet."""
    ours, theirs = forking.Pipe(duplex=False)
    process = forking.Process(target=_run, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    value, errors, grown = None, "", 0
    with contextlib.suppress(EOFError, OSError):  # killed between two messages, or in one
        while True:
            kind, content = ours.recv()
            if kind == "stderr":
                errors += content
            else:
                value, grown = content
    process.join()
    return Ended(process.exitcode, value, errors, grown)


class _Told:
    """Standard error that survives the process: each line goes up the pipe at once."""

    def __init__(self, pipe):
        self.pipe = pipe

    def write(self, text: str) -> None:
        self.pipe.send(("stderr", text))

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _run(pipe, function: Callable, arguments: tuple) -> None:
    sys.stderr = _Told(pipe)
    started = _resident("VmRSS")
    try:
        value, code = function(*arguments), 0
    except UserError as error:
        value, code = str(error), 2
    except BaseException:
        value, code = traceback.format_exc(), 1
    pipe.send(("value", (value, _resident("VmHWM") - started)))
    pipe.close()
    os._exit(code)


def _resident(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def make_root(folder: Path) -> Path:
    """A repository with this code and a prepared array of the experiment ``smoke``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vqlib").symlink_to(ROOT / "vqlib")
    write_prepared(folder / "data" / "prepared" / "smoke")
    return folder


def write_prepared(folder: Path) -> None:
    """Noise of 4 x 4 patches, as the prepare stage would leave it."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    described = {}
    for name, count in SPLITS.items():
        images = draw.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
        labels = np.zeros(count, np.int64)
        (folder / f"{name}.u8").write_bytes(images.tobytes())
        np.save(folder / f"{name}.labels.npy", labels)
        described[name] = {"count": count, "labels": labels_digest(labels), "chunks": [chunk_digest(images, 0)]}
    manifest = {"format": 1, "image_size": 16, "classes": ["n00000000"], "splits": described}
    (folder / "manifest.json").write_bytes(seal(json_bytes(manifest).removesuffix(b"\n}\n")))


def train(root: Path, variant: str = "vq", learning_rate: float = 1e-3, before: Callable | None = None) -> None:
    """``train_run`` as a notebook of the pipeline calls it; ``before()`` may arm a fault first."""
    from support import make_experiment, make_run

    from vqlib.runs import train_run

    os.environ["VQLIB_PIPELINE"] = str(root / "obsolete")
    os.environ.pop("VQLIB_CHECKPOINTS", None)
    experiment = make_experiment(root, steps=STEPS, checkpoint_every=EVERY, log_every=4)
    run = make_run(variant, learning_rate=learning_rate)
    if before:
        before()
    train_run(experiment, run)


def die_after_saving(step: int) -> None:
    """Arm a kill right after the checkpoint of a step is complete."""
    from vqlib import checkpoints

    save = checkpoints.save_state

    def save_and_die(folder, state):
        save(folder, state)
        if state.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.save_state = save_and_die


def outcome(root: Path) -> dict[str, bytes]:
    """All that a run leaves, but the lock."""
    files = [path for part in ("runs", "results") for path in (root / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.name != ".lock"}


def states(root: Path) -> dict[Path, bytes]:
    """The checkpoints, oldest first."""
    return {path: path.read_bytes() for path in sorted(root.glob("checkpoints/*/[0-9]*.safetensors"))}


def last_step(root: Path) -> int:
    """Steps done according to the newest checkpoint."""
    return max((int(path.name[:9]) for path in states(root)), default=0)


def one_line(ended: Ended) -> str:
    """The message of a run that a UserError ended."""
    assert ended.code == 2, ended
    assert "\n" not in ended.value
    return ended.value
