"""The test error as the paper's released code measures it, to show what its protocol changes.

That code never switches BatchNorm to evaluation, so every batch is normalised by its own statistics, and it drops the
last, incomplete batch of 128. Its test images come in mixed order, so batches are drawn at random here too: prepared
images are sorted by class, and statistics of two classes are other ones. What it trains on its own protocol cannot be
undone here: the weights are ours.
"""

import copy

import torch
from torch import nn

from vqlib.batches import Images
from vqlib.model import VQVAE

BATCH = 128


def mixed(number: int) -> torch.Tensor:
    """0..number-1 in an order that looks random and is always the same."""
    return torch.randperm(number, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def released_protocol(model: VQVAE, images: Images) -> dict[str, float | int] | None:
    """``images`` counted and their mean ``mse`` on [-1, 1]; None with fewer than a batch. Changes no state."""
    batches = mixed(len(images)).split(BATCH)
    full = [part for part in batches if len(part) == BATCH]
    if not full:
        return None
    model = copy.deepcopy(model).eval()  # running statistics move in training mode
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train()
    total = 0.0
    for part in full:
        x = images.batch(part)
        z, _, _ = model.bottleneck(model.encode(x))
        total += float((x - model.decode(z)).double().square().mean())
    return {"images": BATCH * len(full), "mse": total / len(full)}
