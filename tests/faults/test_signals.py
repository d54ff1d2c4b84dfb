"""Signals to a training's kernel, to papermill and to `dvc repro`: what is lost, what is left running, what is said.

The tests of this file build on one another in the order in which they stand: all interrupt one run, and the last one
lets it end. Each waits for two new checkpoints before it interrupts.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from test_pipeline import copy_of_repository
from training_trials import last_step, make_root, outcome, write_prepared

from vqlib import nb
from vqlib.params import ROOT

EVERY = 50
PARAMS = f"""\
root: ../..
params: experiments/smoke/params.yaml
experiment:
  name: smoke
  title: A run that is long enough to be interrupted
  data: {{source: photos, image_size: 16}}
  network: {{width: 8, num_embeddings: 16}}
  training: {{steps: 8000, batch_size: 4, learning_rate: 1e-3, device: cpu, precision: float32, log_every: 1000,
             checkpoint_every: {EVERY}}}
  prior: {{variants: []}}
runs:
  vq-0: {{variant: vq, bottleneck: vq, seed: 0}}
"""
NOTEBOOK = "build/smoke/02_train.ipynb"
EXECUTED = "executed/smoke/02_train-vq-0.ipynb"
COMMANDS = {
    "papermill": ["vqlib.nb", "run", NOTEBOOK, EXECUTED, "-r", "experiment", "smoke", "-r", "run", "vq-0"],
    "dvc repro": ["dvc", "repro", "-s", "experiments/smoke/dvc.yaml:train@vq-0"],
    "dvc repro under sh": ["dvc", "repro", "-s", "experiments/smoke/dvc.yaml:train@vq-0"],
}
# (what is started, who gets the signal, which)
CASES = [
    ("papermill", "papermill", "SIGTERM"),
    ("papermill", "papermill", "SIGINT"),
    ("papermill", "papermill", "SIGKILL"),
    ("papermill", "kernel", "SIGTERM"),
    ("papermill", "kernel", "SIGINT"),
    ("papermill", "kernel", "SIGKILL"),
    ("dvc repro", "dvc repro", "SIGTERM"),
    ("dvc repro", "dvc repro", "SIGKILL"),
    ("dvc repro under sh", "dvc repro", "SIGKILL"),  # DVC starts commands through $SHELL, and sh may stay in between
    ("dvc repro", "terminal", "SIGINT"),  # Ctrl-C: to all processes of the foreground
    ("dvc repro", "terminal", "SIGHUP"),
]
PATIENCE = 120  # seconds without any progress, for what takes a few on an idle machine


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A copy of the repository with a prepared array, ready for the stage train."""
    root = tmp_path_factory.mktemp("signals") / "copy"
    copy = copy_of_repository(root)
    (root / "experiments/smoke").mkdir()
    (root / "experiments/smoke/params.yaml").write_text(PARAMS)
    shutil.copy(root / "dvc.yaml", root / "experiments/smoke/dvc.yaml")
    write_prepared(root / "data/prepared/smoke")
    copy.run(sys.executable, "-m", "vqlib.nb", "strip", "notebooks/02_train.ipynb", "--to", "build/smoke")
    return root


class Started:
    """A command in a process group of its own, as a terminal would start it."""

    def __init__(self, root: Path, name: str):
        self.root, self.log = root, root / f"{time.monotonic_ns()}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VQLIB_")}
        environment["OMP_NUM_THREADS"] = "1"  # more gain nothing in so small a network
        environment["SHELL"] = "/bin/sh" if name.endswith("sh") else "/bin/bash"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *COMMANDS[name]], cwd=root, stdout=log, stderr=log, env=environment,
                start_new_session=True, preexec_fn=heed_ctrl_c,
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        return self.log.read_text()

    def kernel(self) -> int:
        """The process that holds the run, by its lock."""
        lock = self.root / "runs/smoke/vq-0/.lock"
        return int((lock.read_text() if lock.exists() else "") or 0)

    def until_trained(self, steps: int) -> None:
        wait_for(lambda: last_step(self.root) >= steps or self.process.poll() is not None, self.said, self.step)
        assert last_step(self.root) >= steps, self.said()

    def until_ended(self) -> None:
        wait_for(lambda: self.process.poll() is not None, self.said, self.step)

    def step(self) -> int:
        return last_step(self.root)

    def processes(self) -> list[int]:
        """The command, its children and theirs; none when it has ended."""
        found = [] if self.process.poll() is not None else [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, task.read_text().split())
        return found


def heed_ctrl_c() -> None:
    """Undo what a shell does to programs that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, what=lambda: "", progress=lambda: None) -> None:
    """Until ``condition()``; fails with ``what()`` when ``progress()`` has stayed the same for too long."""
    seen, deadline = progress(), time.monotonic() + PATIENCE
    while not condition():
        if (now := progress()) != seen:
            seen, deadline = now, time.monotonic() + PATIENCE
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("command", "target", "name"),
    [pytest.param(*case, marks=pytest.mark.faults if case is not CASES[0] else ()) for case in CASES],
)
def test_a_signal(attempt, root, command, target, name):
    with attempt("training", f"{name} to {target}") as seen, Started(root, command) as started:
        before = last_step(root)
        started.until_trained(before + 2 * EVERY)
        if before:
            assert f"going on after step {before:,}" in started.said()
        processes = started.processes()
        assert started.kernel() in processes
        if target == "terminal":
            os.killpg(started.process.pid, signal.Signals[name])
        else:
            os.kill(started.kernel() if target == "kernel" else started.process.pid, signal.Signals[name])
        wait_for(lambda: not any(map(is_running, processes)), lambda: f"{processes}: {started.said()}")
        assert started.process.wait() != 0
        assert last_step(root) >= before + 2 * EVERY
        assert not (root / "runs/smoke/vq-0/model.safetensors").exists(), "the run ended before it was interrupted"
        if command == "papermill" and (target, name) != ("papermill", "SIGKILL"):
            last = started.said().splitlines()[-1]
            assert "start again: a training goes on from its last checkpoint" in last
            assert "Traceback" not in started.said()
        seen("every process ended, checkpoints kept, the next start went on from the last")


SLOW = """
import sys, time
from pathlib import Path

sys.path[:0] = ["tests", "tests/faults"]
from training_trials import train

from vqlib import training

def slowly(step, *arguments, original=training.batch_indices):
    (Path(folder) / "began").touch()
    time.sleep(8)
    return original(step, *arguments)

training.batch_indices = slowly
train(Path(folder))
"""


# ``vqlib.nb`` whose end takes long enough for nbclient to see that the kernel is dead
LATE = """
import asyncio, sys
from jupyter_client.manager import AsyncKernelManager
from vqlib import nb

async def late(self, *arguments, original=AsyncKernelManager._async_cleanup_resources, **options):
    await asyncio.sleep(3)
    await original(self, *arguments, **options)

AsyncKernelManager._async_cleanup_resources = AsyncKernelManager.cleanup_resources = late
sys.exit(nb.main())
"""


@pytest.fixture
def slow(tmp_path):
    """A notebook in the pipeline whose training takes 8 seconds for a step, in the middle of its first step."""
    root, notebook = make_root(tmp_path / "root"), tmp_path / "slow.ipynb"
    parameters = nbformat.v4.new_code_cell('folder = ""', metadata={"tags": ["parameters"]})
    made = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(SLOW)])
    notebook.write_bytes(nb.to_bytes(nb.strip(made)))
    process = subprocess.Popen(
        [sys.executable, "-c", LATE, "run", notebook, tmp_path / "out.ipynb", "-r", "folder", root], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    process.root = root
    try:
        wait_for(lambda: (root / "began").exists() or process.poll() is not None)
        process.kernel = int((root / "runs/smoke/vq-0/.lock").read_text())
        yield process
    finally:
        process.kill()
        process.communicate()


# Without a wait the kernel would have 5 seconds: at half of them SIGTERM, a second signal; then SIGKILL.
@pytest.mark.parametrize(
    ("signals", "saved"),
    [
        (["SIGTERM"], 1),
        (["SIGTERM", "SIGKILL of the kernel"], 0),
        pytest.param(["SIGINT"], 1, marks=pytest.mark.faults),
        pytest.param(["SIGTERM", "SIGTERM"], 0, marks=pytest.mark.faults),
    ],
    ids=str,
)
def test_a_kernel_gets_the_time_that_saving_takes(slow, signals, saved):
    for number, name in enumerate(signals):
        time.sleep(number)
        os.kill(slow.kernel if "kernel" in name else slow.pid, signal.Signals[name.split()[0]])
    said = slow.communicate(timeout=PATIENCE)[0]
    assert slow.returncode == 130
    wait_for(lambda: not is_running(slow.kernel))
    assert last_step(slow.root) == saved
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "stopped; start again: a training goes on from its last checkpoint"


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", ["papermill", "dvc repro"])
def test_a_second_start_while_the_first_runs_is_refused(attempt, root, command):
    with attempt("training", f"second {command} while the first runs") as seen, Started(root, "papermill") as first:
        before = last_step(root)
        first.until_trained(before + EVERY)
        with Started(root, command) as second:
            assert second.process.wait(PATIENCE) != 0
            lines = [line for line in second.said().splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert f"process {first.kernel()} is already training vq-0 here" in lines[0]
        assert "Traceback" not in second.said()
        first.until_trained(last_step(root) + EVERY)
        seen("refused in one line with the first one's pid; the first went on")


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_after_all_that_the_run_ends_the_same(attempt, root):
    with attempt("training", "run interrupted by all these signals, then left alone") as seen:
        with Started(root, "dvc repro") as last:
            before = last_step(root)
            last.until_ended()
            assert last.process.returncode == 0, last.said()
            assert f"going on after step {before:,}" in last.said()
        assert not list(root.glob("checkpoints/*"))
        made = outcome(root)
        for folder in ("runs", "results"):
            shutil.rmtree(root / folder / "smoke")
        with Started(root, "papermill") as whole:
            whole.until_ended()
            assert whole.process.returncode == 0, whole.said()
            assert "going on" not in whole.said()
        assert outcome(root) == made
        seen("same bytes as an uninterrupted run")
