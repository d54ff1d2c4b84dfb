"""Everything around training: start-up, papermill, evaluation, report, a `dvc repro` with nothing to do, imports.

All of it is timed in a copy of the repository, on the smallest experiment, with the commands that dvc.yaml has; the
`dvc repro` also on the default experiment, as far as it can be without the models of its runs.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from vqlib.data.reader import open_split
from vqlib.device import make_deterministic
from vqlib.evaluation import evaluate
from vqlib.model import make_model
from vqlib.params import ROOT, Network, load_experiment, load_variants
from vqlib.training import train

SMALLEST = """\
root: ../..
params: experiments/smallest/params.yaml
experiment:
  name: smallest
  title: The smallest experiment
  data: {source: photos, image_size: 16, limit: 128}
  network: {width: 8, num_embeddings: 16}
  training: {steps: 20, batch_size: 16, learning_rate: 1e-3, device: cpu, log_every: 5, checkpoint_every: 6}
  prior: {variants: []}
runs:
  vq-0: {variant: vq, bottleneck: vq, seed: 0}
"""
PIPELINE = "experiments/smallest/dvc.yaml"
PAPER_IMAGES = 10_000  # of the test split, which is evaluated with as many of training
STARTS = {  # what must be quick, as arguments of Python
    "import vqlib": ["-c", "import vqlib"],
    "import vqlib.params": ["-c", "import vqlib.params"],
    "import vqlib.runs, and torch with it": ["-c", "import vqlib.runs"],
    "python -m vqlib --help": ["-m", "vqlib", "--help"],
    "python -m vqlib train sampel vq-0: a mistake": ["-m", "vqlib", "train", "sampel", "vq-0"],
}


def copy_of_repository(folder: Path) -> Path:
    """The files that git tracks, as they are now, in a repository of their own with the smallest experiment."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    place = folder / "experiments" / "smallest"
    place.mkdir()
    (place / "params.yaml").write_text(SMALLEST)
    (place / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def seconds_of(arguments: list[str], folder: Path, ok: bool = True) -> float:
    """Wall seconds of this Python with arguments. Raises RuntimeError, with what it said, unless it ends as it must."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # stages call `python`
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PATH": path, "PYTHONPATH": str(folder)})  # fmt: skip
    seconds = time.perf_counter() - start
    if (done.returncode == 0) != ok:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return seconds


def no_op_of_default(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of a dry `dvc repro` of the default experiment, and whether there was nothing to do indeed."""
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    ends_well = done.returncode == 0  # it does not where a stage would have to run whose dependencies are not there
    return {
        "default": [seconds_of(command[1:], folder, ends_well) for _ in range(rounds)],
        "default_is_current": ends_well and "Running stage" not in done.stdout,
        "default_runs": len(load_experiment("sample", folder).runs),
    }


def starts(rounds: int) -> dict[str, list[float]]:
    works = {
        name: (lambda a=arguments, ok="mistake" not in name: seconds_of(a, ROOT, ok))
        for name, arguments in STARTS.items()
    }
    return measure.in_turn(works, rounds)


def stages(folder: Path) -> dict[str, float]:
    """Seconds of every stage by itself, by the command that dvc.yaml has for it, in the order of the pipeline."""
    build, executed = "build/smallest", "executed/smallest"
    books = ("01_prepare", "02_train", "03_evaluate", "04_report")
    sources = [f"notebooks/{name}.ipynb" for name in books]
    seconds = {"notebooks": seconds_of(["-m", "vqlib.nb", "strip", *sources, "--to", build], folder)}
    for name in books:
        which = ["-r", "run", "vq-0"] if name in ("02_train", "03_evaluate") else []
        arguments = ["-m", "vqlib.nb", "run", f"{build}/{name}.ipynb", f"{executed}/{name}.ipynb"]
        seconds[name[3:]] = seconds_of([*arguments, "-r", "experiment", "smallest", *which], folder)
    return seconds


def loop_of(folder: Path) -> float:
    """Seconds of the training loop itself on the smallest experiment, without start-up, reading and saving."""
    experiment = load_experiment("smallest", folder)
    splits = [open_split(experiment.prepared, name) for name in ("train", "validation")]
    make_deterministic()
    start = time.perf_counter()
    train(experiment, experiment.run("vq-0"), *splits, torch.device("cpu"), torch.float32)
    return time.perf_counter() - start


def at_paper_scale(device: torch.device, small: bool) -> dict[str, Any]:
    """A step and the evaluation of an image at the paper's size, from which the share of a whole run is computed."""
    given = measure.setting(8, 16, 8, 16) if small else measure.setting()
    steps, images = (20 if device.type == "cuda" else 1), 16 if small else 256
    training = measure.TakingTurns(given, load_variants()["vq"], measure.made_split(2 * given["batch"], given["size"]),
                                   device, steps)  # fmt: skip
    step = measure.quartiles([training.interval() for _ in range(4)][1:])["median"]
    training.close()
    split = measure.made_split(images, given["size"])
    model = make_model(Network(width=given["width"], num_embeddings=given["codes"]), load_variants()["vq"]).to(device)
    start = time.perf_counter()
    evaluate(model, split, split, device)
    return {**given, "step": step, "evaluated": images, "evaluation": time.perf_counter() - start,
            "steps": measure.PAPER_STEPS, "images": PAPER_IMAGES}  # fmt: skip


def measured(device: torch.device, small: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"starts": starts(1 if small else 5), "paper": at_paper_scale(device, small)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = copy_of_repository(Path(temporary, "copy"))
        if small:  # the smallest of all: what the trainer takes, without notebooks
            seconds_of(["-m", "vqlib", "prepare", "smallest"], folder)
            return {**result, "loop": loop_of(folder)}
        result["stages"] = stages(folder)
        result["loop"] = loop_of(folder)
        seconds_of(["-m", "dvc", "repro", "-q", PIPELINE], folder)
        smallest = [seconds_of(["-m", "dvc", "repro", PIPELINE], folder) for _ in range(5)]
        result["no_op"] = {"smallest": smallest, **no_op_of_default(folder, 5)}
    return result
