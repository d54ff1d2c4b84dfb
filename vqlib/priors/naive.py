"""What a prior is worth: the same draws without one, and what numbers cost when each stands alone."""

import torch
from torch import Tensor

from vqlib.priors.latents import Latents, Layout


def naive_sample(train: Latents, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Symbols and reals of which every one is drawn on its own, as often as it occurs in training images.

    A real is drawn from those of the same channel; NaN where the code's reals are not stored.
    """
    images, height, width, _ = train.symbols.shape
    places = torch.randint(images * height * width, (count, height, width), generator=generator)
    symbols = train.symbols.flatten(0, 2)[places]
    if train.reals is None:
        return symbols, None
    columns = []
    for channel in range(train.reals.shape[1]):
        values = train.reals[:, channel].flatten()
        values = values[~torch.isnan(values)]
        values = values if len(values) else torch.full((1,), torch.nan)
        drawn = torch.randint(len(values), (count, *train.reals.shape[2:]), generator=generator)
        columns.append(values[drawn])
    return symbols, torch.stack(columns, dim=1)


def order0_bits(symbols: Tensor, layout: Layout) -> list[float]:
    """Entropy (bits) of each of the Q symbols' histograms: the least that a code of fixed tables can reach."""
    found = []
    for q, size in enumerate(layout.alphabets):
        share = torch.bincount(symbols[..., q].flatten(), minlength=size).double()
        share = share / share.sum()
        found.append(float(-torch.xlogy(share, share).sum() / torch.log(torch.tensor(2.0))))
    return found
