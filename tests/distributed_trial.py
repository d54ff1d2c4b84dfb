"""Train variants for 20 steps in float64, alone or in torchrun's processes: what tests/test_distributed.py compares.

    torchrun --nproc-per-node 2 tests/distributed_trial.py FOLDER [VARIANT ...] [--broken]

``--broken`` takes one kind of sum over processes away at a time, to see that the comparison sees each.
"""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from support import KINDS, VARIANTS, make_experiment, make_run, make_split
from torch import nn

from vqlib import distributed, training
from vqlib.bottlenecks import _frequency, frequency_released, gain_shape, library
from vqlib.model import VQVAE, make_model
from vqlib.params import Network, Variant
from vqlib.training import train

NETWORK = Network(width=6, num_embeddings=512)
BUDGET = {"steps": 20, "batch_size": 8, "log_every": 7, "checkpoint_every": 5, "learning_rate": 1e-3}
# what no variant of params.yaml shows in so few steps: draws for every position, and rare codes in every batch
EXTRA = {
    "drawn": VARIANTS["vq"],
    "released_4": VARIANTS["frequency_released_312"].model_copy(update={"options": {"num_frequent": 4}}),
}
TRAIN, VALIDATION = make_split(45, seed=1), make_split(300, size=8, seed=2, name="validation")


def make_trial_model(variant: Variant) -> VQVAE:
    """The model of a variant, without the biases of convolutions before a batch norm.

    That takes them out again, so their true gradient is zero: what is computed is rounding alone, which Adam divides
    by its own size. All else would agree to 1e-12 and these to nothing.
    """
    model = make_model(NETWORK, variant)
    for chain in model.modules():
        if isinstance(chain, nn.Sequential):
            for layer, after in itertools.pairwise(chain):
                if isinstance(after, nn.BatchNorm2d):
                    layer.bias.requires_grad_(False)
    return model


def draw_per_position(model: VQVAE) -> VQVAE:
    """A bottleneck that draws for every position of the batch, by its contract."""

    def with_noise(bottleneck: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        (z_e,) = inputs
        whole = torch.rand(len(z_e) * distributed.size(), *z_e.shape[1:], dtype=z_e.dtype)
        return z_e + distributed.part_of(whole) if bottleneck.training else z_e

    model.bottleneck.register_forward_pre_hook(with_noise)
    return model


def trained(name: str, **options):
    """(weights, history) of a variant, with this process's part of the work."""
    experiment = make_experiment(network=NETWORK, **BUDGET)
    run = make_run().model_copy(update={"variant": EXTRA.get(name) or VARIANTS[name]})
    model = make_trial_model(run.variant)
    result = train(
        experiment, run, TRAIN, VALIDATION, torch.device("cpu"), torch.float64,
        model=draw_per_position(model) if name == "drawn" else model, **options,
    )  # fmt: skip
    return {key: value.double() for key, value in result.weights.items()}, result.history


def alone(values):
    """In place of a sum over processes, or of a module that has them."""
    return values


# what is taken away, by the name of the control: (where, names there); and a variant that has it
CONTROLS = {
    "gradients": (distributed, {"parallel": lambda model, device: model}, "vq"),
    "batch norm": (distributed, {"synchronise": lambda model, device: model}, "vq"),
    "log": (training, {"distributed": SimpleNamespace(**vars(distributed) | {"summed": alone, "added": alone})}, "vq"),
    "gain and shape": (gain_shape, {"summed": alone}, "gain_shape_2"),
    "frequencies": (_frequency, {"summed": alone}, "frequency_502"),
    "frequencies as released": (frequency_released, {"summed": alone}, "released_4"),
    "moving averages": (library, {"summed": alone}, "vq_ema"),
}


@contextlib.contextmanager
def broken(control: str) -> Iterator[str]:
    """Without one kind of sum; the variant that needs it."""
    where, names, variant = CONTROLS[control]
    with mock.patch.multiple(where, **names):
        yield variant


def main(folder: Path, names: list[str], controls: bool) -> None:
    with distributed.joined("cpu"):
        for name in CONTROLS if controls else names or [*KINDS, *EXTRA]:
            with broken(name) if controls else contextlib.nullcontext(name) as variant:
                found = trained(variant)
            if distributed.rank() == distributed.size() - 1:  # any of them: all have the same
                torch.save(found, folder / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [name for name in sys.argv[2:] if name != "--broken"], "--broken" in sys.argv)
