"""New images drawn from the prior of a run: what notebooks and the command line call."""

from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqlib.errors import ParameterError
from vqlib.evaluation import png
from vqlib.files import in_one_line, write_atomically
from vqlib.opened import open_run
from vqlib.params import Experiment, Run
from vqlib.priors.latents import decode
from vqlib.priors.model import check_temperature, find_class, load_prior

MOST = 1024  # images of one call


def prior_file(experiment: Experiment, run: Run) -> Path:
    return experiment.run_folder(run) / "prior.safetensors"


def sample_images(
    experiment: Experiment, run: Run, class_name: str | None = None, temperature: float = 1.0, seed: int = 0,
    count: int = 64,
) -> Tensor:  # fmt: skip
    """New images (count, 3, H, W) in [-1, 1]: of one class, or of evenly many of each in turn when none is named.

    Raises:
        ParameterError: no such class, a temperature or count that makes no sense.
        DataError: the run has no model or no prior, or they do not belong together.
    """
    check_temperature(temperature)
    if not 1 <= count <= MOST:
        raise ParameterError(f"count is {count}; it must be from 1 to {MOST:,}")
    opened = open_run(experiment, run)
    classes = opened.splits["train"].classes
    label = None if class_name is None else find_class(class_name, classes)
    prior, _ = load_prior(prior_file(experiment, run), run, opened.model, opened.weights)
    labels = torch.arange(count) % len(classes) if label is None else torch.full((count,), label)
    generator = torch.Generator().manual_seed(seed)
    drawn = prior.to(opened.device).sample(labels, count, temperature, generator)
    return decode(opened.model, *drawn, prior.layout)


def write_samples(experiment: Experiment, run: Run, target: Path, *how: Any) -> Path:
    """``sample_images`` as a PNG, about as wide as it is high."""
    images = sample_images(experiment, run, *how)
    with in_one_line(target):
        write_atomically(target, png(images, ceil(len(images) ** 0.5)))
    return target
