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
from vqlib.priors.samples import COLUMNS, grid

MOST = 1024  # images of one call


def prior_file(experiment: Experiment, run: Run) -> Path:
    return experiment.run_folder(run) / "prior.safetensors"


def sample_images(
    experiment: Experiment, run: Run, class_name: str | None = None, temperature: float = 1.0, seed: int = 0,
    count: int = 64,
) -> Tensor:  # fmt: skip
    """New images (count, 3, H, W) in [-1, 1]: of one class, or when none is named of ``in_turn``'s classes.

    All of class, temperature, seed and count decide an image: random numbers are drawn position by position, for all
    images at once. Only its class does not depend on the count.

    Raises:
        ParameterError: no such class, a temperature or count that makes no sense.
        DataError: the run has no model or no prior, or they do not belong together.
    """
    check_temperature(temperature)
    if not 1 <= count <= MOST:
        raise ParameterError(f"count is {count}; it must be from 1 to {MOST:,}")
    opened = open_run(experiment, run, ("train",))
    classes = opened.splits["train"].classes
    label = None if class_name is None else find_class(class_name, classes)
    prior, _ = load_prior(prior_file(experiment, run), run, opened.model, opened.weights)
    labels = in_turn(len(classes), count) if label is None else torch.full((count,), label)
    generator = torch.Generator().manual_seed(seed)
    drawn = prior.to(opened.device).sample(labels, count, temperature, generator)
    return decode(opened.model, *drawn, prior.layout)


def in_turn(classes: int, count: int) -> Tensor:
    """Labels (count,), every class before one comes again, and the first few spread over all of them: in the order of
    their binary digits read backwards."""
    digits = (classes - 1).bit_length()
    order = sorted(range(classes), key=lambda label: f"{label:0{digits}b}"[::-1])
    return torch.tensor(order)[torch.arange(count) % classes]


def report_grid(experiment: Experiment, run: Run) -> Tensor:
    """The samples in the report's picture of the run, (ROWS * COLUMNS, 3, H, W), row by row, drawn again."""
    opened = open_run(experiment, run, ("train",))
    prior, _ = load_prior(prior_file(experiment, run), run, opened.model, opened.weights)
    return grid(opened.model, prior.to(opened.device), run.seed)


def write_samples(experiment: Experiment, run: Run, target: Path, *how: Any, as_in_report: bool = False) -> Path:
    """``sample_images`` as a PNG, about as wide as it is high; or ``report_grid``, as it stands in the report."""
    images = report_grid(experiment, run) if as_in_report else sample_images(experiment, run, *how)
    with in_one_line(target):
        write_atomically(target, png(images, COLUMNS if as_in_report else ceil(len(images) ** 0.5)))
    return target
