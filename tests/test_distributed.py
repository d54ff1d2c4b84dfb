"""Several processes train what one does; their checkpoints and their deaths."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import distributed_trial
import psutil
import pytest
import torch
from distributed_trial import EXTRA
from faults.training_trials import write_prepared
from support import KINDS, ONE_OF_EACH, VARIANTS

from vqlib.errors import DeviceError, ParameterError
from vqlib.launch import processes_for
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
    """What 2 and 4 processes make of the variants, and what 2 make where one kind of sum over processes is missing."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("2", "4", "broken")}
    torchrun(2, "tests/distributed_trial.py", str(made["2"]))
    torchrun(4, "tests/distributed_trial.py", str(made["4"]), *ONE_OF_EACH)
    torchrun(2, "tests/distributed_trial.py", str(made["broken"]), "--broken")
    return made


@pytest.fixture(scope="module")
def alone():
    return {name: distributed_trial.trained(name) for name in [*KINDS, *EXTRA]}


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
    ("variant", "processes"), [*((name, "2") for name in [*KINDS, *EXTRA]), *((name, "4") for name in ONE_OF_EACH)]
)
def test_several_processes_train_what_one_does(folders, alone, variant, processes):
    found = torch.load(folders[processes] / f"{variant}.pt")
    assert distance(alone[variant], found) < (1e-5 if variant in WRAPPED else 1e-12)


@pytest.mark.parametrize("control", distributed_trial.CONTROLS)
def test_without_any_one_kind_of_sum_over_processes_they_would_not(folders, alone, control):
    variant = distributed_trial.CONTROLS[control][-1]
    assert distance(alone[variant], torch.load(folders["broken"] / f"{control}.pt")) > 1e-3


@pytest.mark.parametrize(
    ("kind", "devices", "environment", "processes"),
    [
        ("cuda", 1, "", 1),
        ("cuda", 4, "", 4),
        ("cuda", "auto", "", 4),
        ("cpu", "auto", "", 1),
        ("cpu", 8, "", 8),
        ("cuda", 1, "auto", 4),
        ("cuda", "auto", "2", 2),
    ],
)
def test_devices_are_counted(monkeypatch, kind, devices, environment, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("VQLIB_DEVICES", environment)
    assert processes_for(devices, kind) == processes


@pytest.mark.parametrize(
    ("devices", "environment", "error", "message"),
    [
        (5, "", DeviceError, "training.devices is 5, but torch finds 4 CUDA devices here; it may be auto or 1 to 4"),
        (1, "5", DeviceError, "VQLIB_DEVICES is 5, but torch finds 4 CUDA devices here; it may be auto or 1 to 4"),
        *((1, text, ParameterError, f"VQLIB_DEVICES is '{text}'; it must be auto or an integer from 1 to 1,024")
          for text in ("0", "1025", "all", "-1", "1.5", "²")),
    ],
)  # fmt: skip
def test_devices_that_are_not_there_or_no_number_are_refused(monkeypatch, devices, environment, error, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("VQLIB_DEVICES", environment)
    with pytest.raises(error) as caught:
        processes_for(devices, "cuda")
    assert str(caught.value) == message


PARAMS = """
root: .
params: params.yaml
experiment:
  name: smoke
  title: Smoke
  data: {source: photos, image_size: 16}
  network: {width: 6, num_embeddings: 32}
  training: {steps: 30000, batch_size: 8, learning_rate: 1e-3, device: cpu, devices: DEVICES, precision: float32,
    log_every: LOG_EVERY, checkpoint_every: 4}
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


def start(root, devices: int, *options: str, log_every: int = 30_000, by: str = "parameter") -> subprocess.Popen:
    """Train in so many processes: ``by`` the parameter, or by the environment variable instead of it."""
    text = PARAMS.replace("LOG_EVERY", str(log_every))
    (root / "params.yaml").write_text(text.replace("DEVICES", str(devices if by == "parameter" else 1)))
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "VQLIB_DEVICES")}
    if by == "environment":
        environment["VQLIB_DEVICES"] = str(devices)
    return subprocess.Popen(
        [sys.executable, "-m", "vqlib", "train", "smoke", "vq-0", *options], cwd=root, stderr=subprocess.PIPE,
        text=True, env={**environment, "PYTHONPATH": str(root)},
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

    # started again, it goes on; told to stop, it saves at once, however far the next line of the log is
    stopped, _ = goes_on_and_is_stopped(start(root, devices=2, by="environment"), root, after=step)
    # what two processes saved, one goes on with, though it has other threads
    _, said = goes_on_and_is_stopped(start(root, devices=1), root, after=stopped)
    assert re.search("written by 2 processes of .*; with 1 process of .* last digits may differ", said)


def goes_on_and_is_stopped(process: subprocess.Popen, root, after: int) -> tuple[int, str]:
    """Tell a run that goes on after step ``after`` to stop; the later step at which it saved, and what it said."""
    wait_for_checkpoint(root, process, after=after)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=LONG)[1]
    assert process.returncode == 130, errors
    assert f"going on after step {after:,}" in errors
    stopped = stopped_after(errors)
    assert saved_steps(root)[-1] == stopped > after
    return stopped, errors


def stopped_after(errors: str) -> int:
    """The step that the last line names, which is the only one that speaks of the end."""
    last = errors.splitlines()[-1]
    found = re.fullmatch(r"vq-0: stopped and saved after step ([\d,]+) of 30,000; the same command goes .*", last)
    assert found, errors
    assert errors.count("stopped") == 1
    assert "Traceback" not in errors
    return int(found[1].replace(",", ""))


def test_on_several_machines_each_command_ends_in_one_line(root):
    """Two commands on this machine, as if on two: the second is told to stop, and both do after the same step."""
    before = saved_steps(root)[-1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}"]
    machines = [start(root, 1, *options) for _ in range(2)]
    wait_for_checkpoint(root, machines[0], after=before)
    machines[1].send_signal(signal.SIGTERM)
    errors = [machine.communicate(timeout=LONG)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [130, 130], errors
    assert {stopped_after(text) for text in errors} == {saved_steps(root)[-1]}
    assert sum("going on after step" in text for text in errors) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "2"], "options after the run are torchrun's: unrecognized arguments: --nodes"),
        (["--nnodes"], "options after the run are torchrun's: argument --nnodes: expected one argument"),
        (["--nnodes", "2", "vq-1"], "options after the run are torchrun's: '--nnodes 2 vq-1' are not options alone"),
    ],
)
def test_options_that_torchrun_does_not_have_are_one_line(root, options, message):
    process = start(root, 1, *options)
    assert process.communicate(timeout=60)[1].splitlines() == [f"error: {message}"]
    assert process.returncode == 2


def test_what_cannot_be_divided_is_refused_before_anything_starts(root):
    process = start(root, devices=3)
    errors = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 2
    assert errors == ["error: training.batch_size is 8; with 3 processes "
                      "(training.devices or VQLIB_DEVICES) it must be a multiple of 3"]  # fmt: skip


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
