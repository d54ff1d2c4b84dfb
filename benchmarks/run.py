"""Measure how fast things are, and write the page: ``python -m benchmarks [PART ...]``.

Parts: step, bottlenecks, search, around, growth; all where none is named. Each writes
results/benchmarks/<part>_<device>.json; reports/benchmarks/ is drawn from these alone (``--page`` draws and measures
nothing). Keep the machine otherwise idle.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import around, bottlenecks, growth, measure, search, step
from benchmarks.page import write_page
from vqlib.data import prepare
from vqlib.data.reader import Split, open_split
from vqlib.device import make_deterministic, pick_device
from vqlib.errors import UserError
from vqlib.files import json_bytes, write_atomically
from vqlib.params import ROOT, load_experiment
from vqlib.runs import rounded

PARTS = ("step", "bottlenecks", "search", "around", "growth")


def real_images(experiment_name: str) -> tuple[Split, Split]:
    """Training and validation images of an experiment, prepared in a folder that goes away where they are not yet."""
    experiment = load_experiment(experiment_name)
    if (experiment.prepared / "manifest.json").is_file():
        return open_split(experiment.prepared, "train"), open_split(experiment.prepared, "validation")
    with tempfile.TemporaryDirectory() as folder:
        prepare(experiment.data, Path(folder, "prepared"))
        return open_split(Path(folder, "prepared"), "train"), open_split(Path(folder, "prepared"), "validation")


def measure_part(part: str, device: torch.device, small: bool, experiment: str) -> dict:
    """The result of one part, floats rounded to 4 digits."""
    start = time.perf_counter()
    make_deterministic()
    if part == "step":
        result = step.measured(device, small, real_images(experiment), experiment)
    else:
        module = {"bottlenecks": bottlenecks, "search": search, "around": around, "growth": growth}[part]
        result = module.measured(device, small)
    return rounded({"part": part, **measure.about(device), "wall": time.perf_counter() - start, **result})


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="of the CPU; all where none is given")
    parser.add_argument(
        "--experiment", default="sample", help="whose images and models are real ones for the part step"
    )
    parser.add_argument("--small", action="store_true", help="sizes of a test, which say nothing about speed")
    parser.add_argument("--page", action="store_true", help="draw the page from the results that there are")
    parser.add_argument("--into", type=Path, default=ROOT, help="the folder with results/ and reports/")
    given = parser.parse_args(arguments)
    try:
        if unknown := set(given.parts) - set(PARTS):
            raise UserError(f"part {min(unknown)!r} is not known; it may be one of {', '.join(PARTS)}")
        device = pick_device(given.device)
        if given.threads:
            torch.set_num_threads(given.threads)
        results = given.into / "results" / "benchmarks"
        for part in () if given.page else given.parts or PARTS:
            print(f"{part} ...", file=sys.stderr, flush=True)
            found = measure_part(part, device, given.small, given.experiment)
            write_atomically(results / f"{part}_{device.type}.json", json_bytes(found))
        print(write_page(results, given.into / "reports" / "benchmarks"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
