"""What a result was made from: digests of code and data, hardware and settings."""

from typing import Any

import torch

from vqlib import distributed
from vqlib.device import describe_hardware
from vqlib.errors import StaleCodeError
from vqlib.files import digest_of_files
from vqlib.params import ROOT, Experiment, Run

# What decides how a run is trained, besides parameters and data. dvc.yaml names the same files (a test compares).
TRAINING_CODE = (
    "vqlib/batches.py",
    "vqlib/bottlenecks/__init__.py",
    "vqlib/bottlenecks/_frequency.py",
    "vqlib/data/reader.py",
    "vqlib/device.py",
    "vqlib/distributed.py",
    "vqlib/model.py",
    "vqlib/networks.py",
    "vqlib/quantize.py",
    "vqlib/training.py",
)


def _imported() -> dict[str, str]:
    """Digests of the code as this process has it: when a file changes later, the old module stays in use."""
    bottlenecks = [path.relative_to(ROOT).as_posix() for path in (ROOT / "vqlib" / "bottlenecks").glob("*.py")]
    return {file: digest_of_files([ROOT / file], ROOT) for file in {*TRAINING_CODE, *bottlenecks}}


IMPORTED = _imported()


def code_digest(experiment: Experiment, run: Run) -> str:
    """sha256 over the files that decide how ``run`` is trained.

    Raises:
        StaleCodeError: one of them has changed since this process imported it, so that the old code would run.
    """
    files = [*TRAINING_CODE, f"vqlib/bottlenecks/{run.variant.bottleneck}.py"]
    for file in files:
        if file in IMPORTED and digest_of_files([experiment.root / file], experiment.root) != IMPORTED[file]:
            raise StaleCodeError(f"{run.name}: {file} is not as it was when this process imported it, so no result is "
                                 "written; undo the change to go on from the last checkpoint, or restart the kernel "
                                 "or program to train with the new code")  # fmt: skip
    return digest_of_files([experiment.root / file for file in files], experiment.root)


def determinants(
    experiment: Experiment, run: Run, data_digest: str, device: torch.device, precision: torch.dtype
) -> dict[str, Any]:
    """Everything that decides a run, but for the order of additions: a checkpoint belongs to one value of this.

    How many threads and processes share the work is left out (``workers``), so that a run may go on with others.
    """
    return {
        "code": code_digest(experiment, run),
        "data": data_digest,
        "torch": torch.__version__,
        "device": device.type,
        "precision": str(precision).removeprefix("torch."),
        "network": experiment.network.model_dump(),
        "training": experiment.training.model_dump(exclude={"device", "devices", "precision", "learning_rate"}),
        "run": run.model_dump(),
    }


def workers(device: torch.device) -> dict[str, int | None]:
    """Who shares the work, which decides the last digits: processes, and threads of each where they compute."""
    return {
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "processes": distributed.size(),
    }


def describe(experiment: Experiment, run: Run, facts: dict[str, Any], train_images: int, device: torch.device) -> dict:
    """The provenance that stands in every result, from the ``determinants`` at the start of the run."""
    return {
        "hardware": describe_hardware(device),
        "device": facts["device"],
        "precision": facts["precision"],
        "torch": facts["torch"],
        **workers(device),
        "source": experiment.data.source,
        "image_size": experiment.data.image_size,
        "resize": experiment.data.resize,
        "train_images": train_images,
        "width": experiment.network.width,
        "num_embeddings": run.variant.options.get("num_embeddings", experiment.network.num_embeddings),
        "batch_size": experiment.training.batch_size,
        "steps": experiment.training.steps,
        "learning_rate": run.learning_rate,
        "code": facts["code"][:12],
        "data": facts["data"][:12],
    }


def differences(description: dict[str, Any], experiment: Experiment, run: Run, data_digest: str) -> list[str]:
    """What differs between the ``description`` of a model's file and what ``run`` would be trained as now, by name."""
    made, budget = description["provenance"], experiment.training
    pairs = {
        "variant": (description["variant"], run.variant.model_dump()),
        "network": (description["network"], experiment.network.model_dump()),
        "steps": (made["steps"], budget.steps),
        "batch_size": (made["batch_size"], budget.batch_size),
        "learning_rate": (made["learning_rate"], run.learning_rate),
        "data": (made["data"], data_digest[: len(made["data"])]),
    }
    return [name for name, (then, now) in pairs.items() if then != now]
