"""What a prior is worth: the same draws without one, and what numbers cost when each stands alone."""

from itertools import pairwise
from math import log, pi

import torch
from torch import Tensor

from vqlib.priors.latents import Latents, Layout, joined
from vqlib.priors.reals import LEAST_STD
from vqlib.tables import entropy, level_counts
from vqlib.uniform import UniformQuantizer


def naive_sample(train: Latents, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Symbols and reals of which every one is drawn on its own, as often as it occurs in training images.

    The symbols of one position are drawn together, from their joint histogram. A real is drawn from those of the same
    channel, also where its code stores none (``decompress`` looks at no real there); NaN in a channel that has none.
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
    """Entropy (bits) of the histogram of a position's symbols (N, h, w, Q): of the first, then what each adds to those
    before it.

    The sum, the entropy of their joint histogram, is the least that a code with one table for all positions can reach.
    """
    found = []
    for count in range(1, len(layout.alphabets) + 1):
        together = joined(symbols[..., :count], layout.alphabets[:count])
        found.append(entropy(together.unique(return_counts=True)[1].numpy()))
    return [bits - before for before, bits in pairwise([0.0, *found])]


def order0_reals(train: Latents, test: Latents, quantizer: UniformQuantizer) -> dict[str, float]:
    """``nats`` and ``bits`` of a test real under the Gaussian of its channel in training images, and ``level_bits``:
    the entropy of the histograms of test levels, one for each of the quantizer's ranges."""
    total, stored = 0.0, ~torch.isnan(test.reals)
    for channel in range(test.reals.shape[1]):
        kept, values = (part.reals[:, channel].double() for part in (train, test))
        kept, values = kept[~torch.isnan(kept)], values[~torch.isnan(values)]
        std = kept.std(correction=0).clamp(min=LEAST_STD)
        total += float((((values - kept.mean()) / std).square() / 2 + std.log() + log(2 * pi) / 2).sum())
    nats = total / int(stored.sum())
    counts = level_counts(quantizer, test.reals, stored.numpy())  # (groups, levels)
    level_bits = sum(entropy(count) * count.sum() for count in counts) / counts.sum()
    return {"nats": nats, "bits": nats / log(2), "level_bits": float(level_bits)}
