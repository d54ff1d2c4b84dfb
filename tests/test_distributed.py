"""Several processes train what one does; their checkpoints and their deaths."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import distributed_trial
import psutil
import pytest
import torch
from faults.training_trials import write_prepared
from support import KINDS, ONE_OF_EACH, VARIANTS

from vqlib.params import ROOT

LONG = 240  # seconds that starting and ending processes may take on a busy machine
pytestmark = pytest.mark.timeout(900)
FLOAT32_INSIDE = ("library", "simvq", "fsq")
WRAPPED = {name for name, variant in VARIANTS.items() if variant.bottleneck in FLOAT32_INSIDE}


def torchrun(processes: int, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([*command, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What 2 and 4 processes make of the variants, and what 2 make of one without the sums over processes."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("2", "4", "broken")}
    torchrun(2, "tests/distributed_trial.py", str(made["2"]))
    torchrun(4, "tests/distributed_trial.py", str(made["4"]), *ONE_OF_EACH)
    torchrun(2, "tests/distributed_trial.py", str(made["broken"]), "vq", "--broken")
    return made


@pytest.fixture(scope="module")
def alone():
    return {name: distributed_trial.trained(name) for name in KINDS}


def distance(a, b) -> float:
    """Greatest difference of two results, relative to the greatest value of each tensor or column."""
    (weights, history), (others, other_history) = a, b
    assert weights.keys() == others.keys()
    assert [row.keys() for row in history] == [row.keys() for row in other_history]
    pairs = [(weights[key], others[key]) for key in weights]
    for row, other in zip(history, other_history, strict=True):
        assert (row["step"], row["split"]) == (other["step"], other["split"])
        pairs += [(torch.tensor(row[key]), torch.tensor(other[key])) for key in row if key != "split"]
    return max(float((x.double() - y.double()).abs().max() / x.double().abs().max().clamp(min=1e-3)) for x, y in pairs)


@pytest.mark.parametrize(
    ("variant", "processes"), [*((name, "2") for name in KINDS), *((name, "4") for name in ONE_OF_EACH)]
)
def test_several_processes_train_what_one_does(folders, alone, variant, processes):
    found = torch.load(folders[processes] / f"{variant}.pt")
    assert distance(alone[variant], found) < (1e-5 if variant in WRAPPED else 1e-12)


def test_without_the_sums_over_processes_they_would_not(folders, alone):
    assert distance(alone["vq"], torch.load(folders["broken"] / "vq.pt")) > 1e-3


PARAMS = """
root: .
params: params.yaml
experiment:
  name: smoke
  title: Smoke
  data: {source: photos, image_size: 16}
  network: {width: 6, num_embeddings: 32}
  training: {steps: 30000, batch_size: 8, learning_rate: 1e-3, device: cpu, devices: DEVICES, precision: float32,
    log_every: 4, checkpoint_every: 4}
  prior: {variants: []}
runs:
  vq-0: {variant: vq, bottleneck: vq, seed: 0}
variants:
  vq: {bottleneck: vq}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "copy"
    shutil.copytree(ROOT / "vqlib", folder / "vqlib", ignore=shutil.ignore_patterns("__pycache__"))
    write_prepared(folder / "data" / "prepared" / "smoke")
    return folder


def start(root, devices: int, steps: int = 30_000) -> subprocess.Popen:
    (root / "params.yaml").write_text(PARAMS.replace("DEVICES", str(devices)).replace("30000", str(steps)))
    return subprocess.Popen(
        [sys.executable, "-m", "vqlib", "train", "smoke", "vq-0"], cwd=root, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )  # fmt: skip


def saved_steps(root) -> list[int]:
    return sorted(int(file.name.partition("-")[0]) for file in root.glob("checkpoints/*/*.safetensors"))


def wait_for_checkpoint(root, process: subprocess.Popen, after: int = 0) -> None:
    deadline = time.monotonic() + LONG
    while not any(step > after for step in saved_steps(root)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    return [
        p for p in psutil.Process(process.pid).children(recursive=True) if "torch.distributed.run" not in p.cmdline()
    ]


def test_a_death_and_a_signal_lose_nothing_that_was_saved(root):
    # one of two processes dies: one line, and nobody trains on
    process = start(root, devices=2)
    wait_for_checkpoint(root, process)
    workers = workers_of(process)
    assert len(workers) == 2
    workers[1].kill()
    errors = process.communicate(timeout=LONG)[1].splitlines()
    assert process.returncode == 2
    assert re.match("error: vq-0: process [01] ended with SIGKILL; start again", errors[-1])
    assert not any("Traceback" in line for line in errors)
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    step = saved_steps(root)[-1]

    stopped = goes_on_and_is_stopped(root, devices=2, after=step)  # started again, it goes on; told to stop, it saves
    goes_on_and_is_stopped(root, devices=1, after=stopped)  # what two processes saved, one goes on with


def goes_on_and_is_stopped(root, devices: int, after: int) -> int:
    """Start the run, which goes on after step ``after``, and tell it to stop; the later step at which it saved."""
    process = start(root, devices)
    wait_for_checkpoint(root, process, after=after)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=LONG)[1]
    assert process.returncode == 130
    assert f"going on after step {after:,}" in errors
    stopped = int(re.search(r"stopped and saved after step ([\d,]+)", errors)[1].replace(",", ""))
    assert saved_steps(root)[-1] == stopped > after
    return stopped


def test_what_cannot_be_divided_is_refused_before_anything_starts(root):
    process = start(root, devices=3)
    errors = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 2
    assert errors == ["error: training.batch_size is 8; with 3 processes (training.devices) it must be a multiple of 3"]


def test_an_error_in_the_processes_comes_through_as_one_line(root):
    file = root / "data" / "prepared" / "smoke" / "validation.u8"
    file.rename(file.with_suffix(".away"))
    try:
        process = start(root, devices=2)
        errors = process.communicate(timeout=LONG)[1].splitlines()
    finally:
        file.with_suffix(".away").rename(file)
    assert process.returncode == 2
    assert len(errors) == 1
    assert re.match(r"error: .*validation\.u8 is missing", errors[0])
