"""Several processes train what one does; their checkpoints and their deaths."""

import os
import subprocess
import sys

import distributed_trial
import pytest
import torch
from support import VARIANTS

from vqlib.params import ROOT

WRAPPED = {name for name, variant in VARIANTS.items() if variant.bottleneck == "library"}  # compute in float32


def torchrun(processes: int, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([*command, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What 2 and 4 processes make of every variant, and what 2 make of three without the sums over processes."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("2", "4", "broken")}
    for name in ("2", "4"):
        torchrun(int(name), "tests/distributed_trial.py", str(made[name]))
    torchrun(2, "tests/distributed_trial.py", str(made["broken"]), "vq", "--broken")
    return made


@pytest.fixture(scope="module")
def alone():
    return {name: distributed_trial.trained(name) for name in VARIANTS}


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


@pytest.mark.parametrize("processes", ["2", "4"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_several_processes_train_what_one_does(folders, alone, variant, processes):
    found = torch.load(folders[processes] / f"{variant}.pt")
    assert distance(alone[variant], found) < (1e-5 if variant in WRAPPED else 1e-12)


def test_without_the_sums_over_processes_they_would_not(folders, alone):
    assert distance(alone["vq"], torch.load(folders["broken"] / "vq.pt")) > 1e-3
