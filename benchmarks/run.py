"""One part of the benchmarks, from its options to results/benchmarks/<part>_<device>.json."""

import importlib
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import measure, step
from vqlib.data import prepare
from vqlib.data.reader import Split, open_split
from vqlib.device import make_deterministic, pick_device
from vqlib.files import json_bytes, write_atomically
from vqlib.params import load_experiment
from vqlib.runs import rounded


def real_images(experiment_name: str) -> tuple[Split, Split]:
    """Training and validation images of an experiment, prepared in a folder that goes away where they are not yet."""
    experiment = load_experiment(experiment_name)
    if (experiment.prepared / "manifest.json").is_file():
        return open_split(experiment.prepared, "train"), open_split(experiment.prepared, "validation")
    with tempfile.TemporaryDirectory() as folder:
        prepare(experiment.data, Path(folder, "prepared"))
        return open_split(Path(folder, "prepared"), "train"), open_split(Path(folder, "prepared"), "validation")


def write_part(
    results: Path, part: str, device_name: str, threads: int | None, small: bool, experiment: str
) -> None:  # fmt: skip
    """Measure one part and write its result, floats rounded to 4 digits, with the command that measures it again.

    Raises:
        UserError: no such device, or the images of ``experiment`` are not there.
    """
    device = pick_device(device_name)
    if threads is not None:
        torch.set_num_threads(threads)
    command = f"python -m benchmarks {part} --device {device.type} --threads {torch.get_num_threads()}"
    start = time.perf_counter()
    make_deterministic()
    if part == "step":
        command += f" --experiment {experiment}"
        result = step.measured(device, small, real_images(experiment), experiment)
    else:
        result = importlib.import_module(f"benchmarks.{part}").measured(device, small)
    command += " --small" * small
    about = {"part": part, "command": command, **measure.about(device), "wall": time.perf_counter() - start}
    write_atomically(results / f"{part}_{device.type}.json", json_bytes(rounded(about | result)))
