"""Start a run on several devices: torchrun as a child process, its outcome in one line.

A notebook's kernel cannot be several processes, and code in it is not told when papermill gets SIGTERM; a child is.
"""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch

from vqlib import errors
from vqlib.device import pick_device
from vqlib.distributed import end_with_parent, rank
from vqlib.errors import DeviceError, ParameterError, UserError
from vqlib.files import json_bytes, write_atomically
from vqlib.model import load_model
from vqlib.params import Experiment, Run
from vqlib.training import Stopped, Trained, refuse_uneven_parts

OUTCOME = "VQLIB_OUTCOME"  # names a folder, for the children alone, in which each leaves why it stopped (__main__)
TO_SAVE = 300  # seconds that the processes have to save after SIGTERM: a step and the writing of a checkpoint


def processes_for(devices: str | int, kind: str) -> int:
    """How many processes ``training.devices`` means here, unless the environment variable VQLIB_DEVICES says another.

    Raises:
        ParameterError: VQLIB_DEVICES is neither auto nor a number.
        DeviceError: more GPUs are asked for than there are.
    """
    there = torch.cuda.device_count() if kind == "cuda" else 1
    name, text = "training.devices", os.environ.get("VQLIB_DEVICES")
    if text:  # DVC compares params.yaml, and would train again what merely ran elsewhere
        name, devices = "VQLIB_DEVICES", text
        if re.fullmatch("[0-9]+", text) and 1 <= int(text) <= 1024:
            devices = int(text)
        elif text != "auto":
            raise ParameterError(f"{name} is {text!r}; it must be auto or an integer from 1 to 1,024")
    if devices == "auto":
        return there
    if kind == "cuda" and devices > there:
        raise DeviceError(f"{name} is {devices}, but torch finds {there} CUDA devices here; "
                          f"it may be auto or 1 to {there}")  # fmt: skip
    return devices


def train_apart(experiment: Experiment, run: Run, processes: int) -> Trained:
    """Train ``run`` in ``processes`` processes of this machine and return what they wrote. Raises as ``torchrun``."""
    refuse_uneven_parts(experiment.training, processes)  # they would too, but only once they have started
    torchrun(experiment, run, processes, ["--standalone"])
    return read_trained(experiment, run)


def train_on_machines(experiment: Experiment, run: Run, options: list[str]) -> None:
    """This machine's processes of ``run``, with ``options`` of torchrun: the same command on every machine.

    Raises as ``torchrun``, and ParameterError for an option that torchrun does not have.
    """
    kind = pick_device(experiment.training.device).type
    torchrun(experiment, run, processes_for(experiment.training.devices, kind), options)


def torchrun(experiment: Experiment, run: Run, processes: int, options: list[str]) -> None:
    """Train ``run`` in processes of torchrun; returns when they have ended well.

    Raises:
        UserError: the one that stopped them, or one that names the process that died.
        Stopped: this process, or one on another machine, was told to stop; they have saved and ended.
        KeyboardInterrupt: they were stopped before they could save.
    """
    from torch.distributed.run import get_args_parser

    command = [f"--nproc-per-node={processes}", *options, "-m", "vqlib", "train", experiment.name, run.name]
    parser = get_args_parser()
    parser.error = _refuse_option  # in place of its usage, which is long
    if parser.parse_args(command).training_script != "vqlib":
        _refuse_option(f"{' '.join(options)!r} are not options alone")
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, torch.get_num_threads() // processes))
    with tempfile.TemporaryDirectory() as outcome:
        given = {"OMP_NUM_THREADS": threads, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(TO_SAVE), OUTCOME: outcome}
        child = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *command], cwd=experiment.root, env={**os.environ, **given},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        noise: list[str] = []
        relay = threading.Thread(target=_relay, args=(child.stderr, (experiment.name, run.name), noise), daemon=True)
        relay.start()
        try:
            with stop_on_signal() as to_stop:
                code = _wait(child, to_stop)
        finally:
            child.kill()  # nothing where it has ended; else its processes get SIGTERM (``end_with_parent``)
            relay.join(5)
        if code:
            told = _told(Path(outcome)) or (KeyboardInterrupt() if to_stop() else None)
            raise told or _death(run, noise, experiment.run_folder(run) / "processes.log")


def _refuse_option(message: str) -> None:
    raise ParameterError(f"options after the run are torchrun's: {message}")


def _wait(child: subprocess.Popen, to_stop: Callable[[], bool]) -> int:
    """The exit status of ``child``, which is told when this process is told to stop.

    Raises KeyboardInterrupt when it is told again, or when ``child`` takes longer than it may to save.
    """
    limit = float("inf")
    while time.monotonic() < limit:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(0.2)
        if to_stop() and limit == float("inf"):
            child.terminate()  # torchrun passes it on, and the processes save
            limit = time.monotonic() + TO_SAVE + 10
    raise KeyboardInterrupt


def _relay(source: IO[str], names: tuple[str, ...], noise: list[str]) -> None:
    """Pass on the lines that the run says itself; keep those of torchrun, which matter when it fails."""
    for line in source:
        if line.startswith((*names, "checkpoint ")):
            print(line, end="", file=sys.stderr, flush=True)
        else:
            noise.append(line)


def _told(outcome: Path) -> UserError | KeyboardInterrupt | None:
    """Why the processes ended, from the first of them that said so (``leave_reason``)."""
    for file in sorted(outcome.glob("*.json")):
        told = json.loads(file.read_text())
        kinds = {**vars(errors), "Stopped": Stopped, "KeyboardInterrupt": KeyboardInterrupt}
        return kinds.get(told["kind"], UserError)(told["message"])
    return None


def _death(run: Run, noise: list[str], log: Path) -> UserError:
    """Which process died, from what torchrun said, which is left in ``log``."""
    text = "".join(noise)
    write_atomically(log, text.encode())
    first = text.rpartition("Root Cause")[2]  # torchrun's table of failures ends with the first of them
    found = re.search(r"rank\s*: (\d+).*?exitcode\s*: (-?\d+)", first, flags=re.DOTALL)
    died = f"process {found[1]} ended with {_meaning(int(found[2]))}" if found else "a process died"
    return UserError(f"{run.name}: {died}; start again to go on from the last checkpoint; what it said is in {log}")


def _meaning(code: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"status {code}"


def leave_reason(error: UserError | KeyboardInterrupt) -> None:
    """In a process that ``torchrun`` started: leave ``error`` for it."""
    folder = Path(os.environ[OUTCOME])
    if folder.is_dir():
        told = {"kind": type(error).__name__, "message": str(error)}
        write_atomically(folder / f"{rank():04d}.json", json_bytes(told))


def read_trained(experiment: Experiment, run: Run) -> Trained:
    """What a run in other processes wrote: its weights as saved, its history as rounded in the csv."""
    model, description = load_model(experiment.run_folder(run) / "model.safetensors")
    with open(experiment.results / f"{run.name}.csv", newline="") as text:
        history = [{key: _number(value) for key, value in row.items() if value} for row in csv.DictReader(text)]
    return Trained(model.state_dict(), description["provenance"]["best_step"], history)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM or SIGINT came inside the block; the second one interrupts at once.

    So a training saves before it ends. Only the main thread can be told of signals; elsewhere nothing changes.
    """
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)} if main else {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
