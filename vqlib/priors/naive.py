"""What a prior is worth: the same draws without one, and what numbers cost when each stands alone."""

import numpy as np
import torch
from torch import Tensor

from vqlib.priors.latents import Latents, Layout
from vqlib.tables import entropy


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
    return [entropy(np.bincount(one.flatten().numpy(), minlength=size))
            for one, size in zip(symbols.unbind(-1), layout.alphabets, strict=True)]  # fmt: skip
