"""Images a second and memory against batch, image size, number of codes and width, one at a time."""

from typing import Any

import torch

from benchmarks import measure
from vqlib.params import load_variants

BASE = measure.setting(width=64)
AXES = {
    "batch": (8, 16, 32, 64, 128, 256),
    "size": (16, 32, 64, 128),
    "codes": (64, 512, 2048, 8192, 16_384),
    "width": (16, 32, 64, 128, 256),
}
PIXELS_ON_CPU = 128 * 64**2  # in a batch: a larger one would not fit a small machine, so the batch is cut


def settings(base: dict, axes: dict[str, tuple[int, ...]], gpu: bool) -> list[tuple[str, dict]]:
    """(axis, setting) for every point; on a CPU the batch is cut where images are large, which a row shows."""
    found = []
    for axis, values in axes.items():
        for value in values:
            given = {**base, axis: value}
            if axis == "size" and not gpu:
                given["batch"] = min(given["batch"], max(1, PIXELS_ON_CPU // value**2))
            found.append((axis, given))
    return found


def point(given: dict, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds per step of ``rounds`` intervals of ours after two, and the memory of training in a fresh process."""
    vq, split = load_variants()["vq"], measure.made_split(2 * given["batch"], given["size"])
    memory = measure.fresh(measure.memory_of_training, given, device)
    training = measure.TakingTurns(given, vq, split, device, steps)
    seconds = [training.interval() for _ in range(2 + rounds)][2:]
    training.close()
    return {**given, "seconds": seconds, "memory": memory, "rounds": rounds, "steps": steps,
            "operations": measure.step_operations(given, vq)}  # fmt: skip


def measured(device: torch.device, small: bool) -> dict[str, Any]:
    gpu = device.type == "cuda"
    base, axes, rounds, steps = BASE, AXES, 5 if gpu else 3, 20 if gpu else 1
    if gpu:
        base = measure.setting()
        axes = {**AXES, "batch": (*AXES["batch"], 512, 1024), "width": (*AXES["width"], 512)}
    if small:
        base, axes, rounds = measure.setting(8, 16, 4, 16), {"batch": (2, 4), "codes": (16, 32)}, 1
    peak = measure.matmul_peak(device, measure.pick_precision("auto", device), 64 if small else None)
    rows = [{"axis": axis, **point(given, device, rounds, steps)} for axis, given in settings(base, axes, gpu)]
    return {"base": base, "peak": peak, "rows": rows}
