"""A run's prior: how it is built from parameters, kept in a file, and asked for new latents."""

import difflib
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqlib.errors import DataError, ParameterError
from vqlib.model import ALIEN, VQVAE, filled, read_sealed
from vqlib.params import Prior, Run, nearest
from vqlib.priors import make_network
from vqlib.priors.codes import CodePrior
from vqlib.priors.latents import Layout
from vqlib.priors.reals import RealPrior

NETWORKS = ("pixelcnn", "transformer")  # of the codes; each is trained, the better on validation is sampled from
REALS = "pixelcnn"  # of the reals
HOTTEST = 10.0
FEW = 20  # classes that a message may list


class PriorModel(nn.Module):
    """``codes``: a CodePrior per network; ``reals``: a RealPrior or None; ``chosen``: the network to sample from."""

    def __init__(self, layout: Layout, classes: int, params: Prior, chosen: str = NETWORKS[0]):
        super().__init__()
        self.layout, self.classes, self.chosen = layout, classes, chosen
        self.codes = nn.ModuleDict()
        for name in NETWORKS:
            size = getattr(params, name)
            network = make_network(name, size.channels, size.layers, layout.shape)
            self.codes[name] = CodePrior(network, size.channels, layout.alphabets, classes)
        size = params.reals
        self.reals = RealPrior(make_network(REALS, size.channels, size.layers, layout.grid), size.channels, layout,
                               classes) if layout.reals else None  # fmt: skip

    def sample(
        self, labels: Tensor | None, count: int, temperature: float, generator: torch.Generator, batch_size: int = 250
    ) -> tuple[Tensor, Tensor | None]:
        """New symbols and reals on the CPU, laid out as in ``Latents``; see ``CodePrior.sample``."""
        device = next(self.parameters()).device
        found = []
        for start in range(0, count, batch_size):
            given = None if labels is None else labels[start : start + batch_size].to(device)
            size = min(batch_size, count - start)
            symbols = self.codes[self.chosen].sample(given, size, temperature, generator)
            reals = None if self.reals is None else self.reals.sample(symbols, given, temperature, generator)
            found.append((symbols.cpu(), None if reals is None else reals.cpu()))
        symbols, reals = zip(*found, strict=True)
        return torch.cat(symbols), torch.cat(reals) if self.reals is not None else None


def make_prior(layout: Layout, classes: int, params: Prior, seed: int) -> PriorModel:
    """A new prior whose initial weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return PriorModel(layout, classes, params)


def check_temperature(temperature: float) -> float:
    """Raises ParameterError for one that no distribution has."""
    if not 0 < temperature <= HOTTEST:
        raise ParameterError(f"temperature is {temperature:g}; it must be above 0 and at most {HOTTEST:g}, 1 for the "
                             "model as it is")  # fmt: skip
    return temperature


def find_class(name: str, classes: list[str]) -> int:
    """The label of a class by its name. Raises ParameterError, with the nearest known name."""
    if name in classes:
        return classes.index(name)
    if len(classes) <= FEW:
        raise ParameterError(f"class {name!r} is not one of the data{nearest(name, classes)}")
    close = difflib.get_close_matches(name, classes, n=1)
    raise ParameterError(f"class {name!r} is not one of the data{f'; did you mean {close[0]!r}?' if close else ';'} "
                         f"there are {len(classes)}, {classes[0]} to {classes[-1]}")  # fmt: skip


def load_prior(path: Path, run: Run, model: VQVAE, weights: str) -> tuple[PriorModel, dict[str, Any]]:
    """The prior of ``path`` (by ``vqlib.model.save_model``), float32, in eval mode, on the CPU; and its description.

    ``weights``: digest of the model's file that it has to belong to.

    Raises:
        DataError: no such file, none of ours, damaged, the run has no prior, or it belongs to another model.
    """
    again = f"train it again (python -m vqlib prior EXPERIMENT {run.name}, or dvc repro)"
    try:
        tensors, description = read_sealed(path)
        trained_as, reason = description["variant"]["name"], description["reason"]
        alphabets = tuple(description["alphabets"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such prior; the stage prior makes it: {again}") from None
    except ALIEN as error:
        raise DataError(f"{path}: not a prior of this project, or damaged ({str(error).splitlines()[0]})") from None
    if trained_as != run.variant.name:
        raise DataError(f"{path}: a prior of the variant {trained_as!r}, not of {run.variant.name!r}; {again}")
    if reason:
        raise DataError(f"{run.name} has no prior: {reason}")
    if alphabets != tuple(model.bottleneck.alphabets):
        told = [" x ".join(map(str, sizes)) for sizes in (alphabets, model.bottleneck.alphabets)]
        raise DataError(f"{path}: a prior of {told[0]} codes, but the model has {told[1]}; {again}")
    if description["weights"] != weights:
        raise DataError(f"{path}: the prior of other weights than those of {run.name} now; {again}")
    try:
        layout = Layout(alphabets, tuple(description["shape"]), description["reals"], description["by_row"])
        sizes = layout, description["classes"], Prior(**description["prior"]), description["chosen"]
        prior = filled(functools.partial(PriorModel, *sizes), tensors)
    except ALIEN as error:
        raise DataError(f"{path}: not a prior of this project, or damaged ({str(error).splitlines()[0]})") from None
    return prior, description
