"""Train variants for 20 steps in float64, alone or in torchrun's processes: what tests/test_distributed.py compares.

    torchrun --nproc-per-node 2 tests/distributed_trial.py FOLDER [VARIANT ...] [--broken]

``--broken`` takes the sums over processes away, to see that the comparison sees it.
"""

import itertools
import sys
from pathlib import Path

import torch
from support import KINDS, VARIANTS, make_experiment, make_run, make_split
from torch import nn

from vqlib import distributed
from vqlib.model import VQVAE, make_model
from vqlib.params import Network
from vqlib.training import train

NETWORK = Network(width=6, num_embeddings=512)
BUDGET = {"steps": 20, "batch_size": 8, "log_every": 7, "checkpoint_every": 5, "learning_rate": 1e-3}
TRAIN, VALIDATION = make_split(45, seed=1), make_split(300, size=8, seed=2, name="validation")


def make_trial_model(name: str) -> VQVAE:
    """The model of a run, without the biases of convolutions before a batch norm.

    That takes them out again, so their true gradient is zero: what is computed is rounding alone, which Adam divides
    by its own size. All else would agree to 1e-12 and these to nothing.
    """
    model = make_model(NETWORK, VARIANTS[name])
    for chain in model.modules():
        if isinstance(chain, nn.Sequential):
            for layer, after in itertools.pairwise(chain):
                if isinstance(after, nn.BatchNorm2d):
                    layer.bias.requires_grad_(False)
    return model


def trained(name: str, **options):
    """(weights, history) of a variant, with this process's part of the work."""
    experiment = make_experiment(network=NETWORK, **BUDGET)
    result = train(
        experiment, make_run(name), TRAIN, VALIDATION, torch.device("cpu"), torch.float64,
        model=make_trial_model(name), **options,
    )  # fmt: skip
    return {key: value.double() for key, value in result.weights.items()}, result.history


def main(folder: Path, names: list[str], broken: bool) -> None:
    if broken:
        distributed.summed = lambda values: values
        distributed.parallel = lambda model, device: model
    with distributed.joined("cpu"):
        for name in names or KINDS:
            found = trained(name)
            if distributed.rank() == distributed.size() - 1:  # any of them: all have the same
                torch.save(found, folder / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [name for name in sys.argv[2:] if name != "--broken"], "--broken" in sys.argv)
