"""p(reals | symbols, class): Gaussians whose mean and spread follow from the code, refined by a causal network.

``CodeGaussians`` alone is "a prior distribution such as a gaussian" at its simplest: one per code. ``RealPrior`` starts
there and lets a network move mean and spread, given all codes (drawn first) and the reals at earlier positions. With
several reals at a position their Gaussian is diagonal.
"""

from collections.abc import Callable
from math import log, pi, prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.priors.codes import embed
from vqlib.priors.latents import Latents, Layout, NoPriorError, joined
from vqlib.uniform import UniformQuantizer

ChooseReals = Callable[[Tensor, Tensor, Tensor], Tensor]  # mean, std (B, R) float64, stored (B,) -> reals (B, R)
SHRINKAGE = 2.0  # a code's Gaussian counts the overall one as this many observations
LEAST_SPREAD = 1e-3  # of the overall standard deviation: a density has no upper bound without one
LEAST_STD = 1e-5  # and of a real that never varies in training: float32 numbers near 100 lie that far apart
BACKGROUND = 1e-4  # share of a uniform distribution in that of levels, so that an outlier costs finitely many bits


class CodeGaussians(nn.Module):
    """A Gaussian per code (of the first symbol) and real, or per real alone where reals belong to rows."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.by_row, self.alphabets = layout.by_row, layout.alphabets
        codes = 1 if layout.by_row else layout.alphabets[0]
        # float64, since a file rounds float32 to float16: small spreads would be 0, and constants other numbers
        self.register_buffer("mean", torch.zeros(codes, layout.reals, dtype=torch.float64))
        self.register_buffer("std", torch.ones(codes, layout.reals, dtype=torch.float64))
        # whether reals come with these symbols of a position: the code alone may tell, or a second symbol
        self.register_buffer("stored", torch.ones(1 if layout.by_row else prod(layout.alphabets), dtype=torch.bool))

    def rows(self, symbols: Tensor) -> Tensor:
        """(B, h, w, Q) -> the row of the tables for every place of the reals' grid, (B, h, w) or (B, h, 1)."""
        return torch.zeros_like(symbols[:, :, :1, 0]) if self.by_row else symbols[..., 0]

    def all_symbols(self, symbols: Tensor) -> Tensor:
        """The row of ``stored``, like ``rows``."""
        return self.rows(symbols) if self.by_row else joined(symbols, self.alphabets)

    def stores(self, symbols: Tensor) -> Tensor:
        """Whether reals are stored, bool at every place of the reals' grid."""
        return self.stored[self.all_symbols(symbols)]

    def fit(self, latents: Latents, batch_size: int = 1000) -> None:
        """Means and spreads of training latents, drawn towards the overall ones.

        Symbols that training images lack store reals if the rarest of theirs do: what becomes of a position may be a
        matter of how frequent its code is.

        Raises:
            NoPriorError: whether a position stores reals does not follow from its symbols.
        """
        codes, reals = self.mean.shape
        count, told = torch.zeros(codes, dtype=torch.float64), len(self.stored)
        seen, stored = (torch.zeros(told, dtype=torch.float64) for _ in range(2))
        sums, squares = (torch.zeros(codes, reals, dtype=torch.float64) for _ in range(2))
        for part in latents.in_order(batch_size, torch.device("cpu")):
            rows = self.rows(part.symbols).flatten()
            values = part.reals.permute(0, 2, 3, 1).flatten(0, 2).double()  # (positions, R)
            there = ~torch.isnan(values).any(dim=1)
            every = self.all_symbols(part.symbols).flatten()
            seen += torch.bincount(every, minlength=told)
            stored += torch.bincount(every[there], minlength=told)
            count += torch.bincount(rows[there], minlength=codes)
            sums.index_add_(0, rows[there], values[there])
            squares.index_add_(0, rows[there], values[there].square())
        if ((stored != 0) & (stored != seen)).any():
            raise NoPriorError("whether a position stores real numbers does not follow from its symbols")
        mean = sums.sum(dim=0) / count.sum().clamp(min=1)
        variance = (squares.sum(dim=0) / count.sum().clamp(min=1) - mean.square()).clamp(min=1e-12)
        weight = (count + SHRINKAGE)[:, None]
        means = (sums + SHRINKAGE * mean) / weight
        variances = (squares + SHRINKAGE * (variance + mean.square())) / weight - means.square()
        self.mean.copy_(means)
        self.std.copy_(variances.clamp(min=0).sqrt().maximum(LEAST_SPREAD * variance.sqrt()).clamp(min=LEAST_STD))
        rarest = torch.where(seen > 0, seen, torch.inf).argmin()
        self.stored.copy_(torch.where(seen > 0, stored > 0, stored[rarest] > 0))

    def forward(self, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation at every place, (B, R, h, w) or (B, R, h, 1) each, float64."""
        rows = self.rows(symbols)
        return self.mean[rows].permute(0, 3, 1, 2), self.std[rows].permute(0, 3, 1, 2)


class RealPrior(nn.Module):
    """``network`` over ``layout.grid``; see ``vqlib.priors``."""

    def __init__(self, network: nn.Module, channels: int, layout: Layout, classes: int):
        super().__init__()
        self.network, self.channels = network, channels
        self.base = CodeGaussians(layout)
        self.embeddings = nn.ModuleList(nn.Embedding(size, channels) for size in layout.alphabets)
        self.context = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, (1, layout.shape[1] if layout.by_row else 1)),
        )
        self.label = nn.Embedding(classes, channels) if classes > 1 else None
        self.inputs = nn.Linear(layout.reals + 1, channels)
        self.hidden, self.out = nn.Linear(2 * channels, 2 * channels), nn.Linear(2 * channels, 2 * layout.reals)
        nn.init.zeros_(self.out.weight)  # so that training starts at the Gaussian per code
        nn.init.zeros_(self.out.bias)

    def condition(self, symbols: Tensor, labels: Tensor | None) -> Tensor:
        """All codes and the class, (B, C) at every place of the reals' grid."""
        x = embed(self.embeddings, symbols).permute(0, 3, 1, 2)
        context = self.context(x)
        return context if self.label is None else context + self.label(labels)[:, :, None, None]

    def gaussians(self, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the codes, in the type of the network's weights."""
        return tuple(part.to(self.out.weight.dtype) for part in self.base(symbols))

    def embed(self, normalised: Tensor) -> Tensor:
        """(..., R) with NaN where nothing is stored -> (..., C)"""
        there = ~torch.isnan(normalised[..., :1])
        return self.inputs(torch.cat([normalised.nan_to_num(0), there.to(normalised.dtype)], dim=-1))

    def move(self, feature: Tensor, condition: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std (..., R) of the code's Gaussian as the network moves them; feature and condition (..., C)."""
        moved = self.out(F.relu(self.hidden(torch.cat([feature, condition], dim=-1)))).to(mean.dtype)
        shift, scale = moved.chunk(2, dim=-1)
        return mean + std * shift, std * torch.exp(3 * torch.tanh(scale / 3))  # at most a factor of 20

    def forward(self, reals: Tensor, symbols: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and std of every real given those at earlier places, (B, R, h, w) each, like ``reals``."""
        mean, std = self.gaussians(symbols)
        condition = self.condition(symbols, labels)
        x = self.embed(((reals - mean) / std).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        features = self.network(x, condition)
        last = [part.permute(0, 2, 3, 1) for part in (features, condition, mean, std)]
        mean, std = self.move(*last)
        return mean.permute(0, 3, 1, 2), std.permute(0, 3, 1, 2)

    def log_prob(self, reals: Tensor, symbols: Tensor, labels: Tensor | None) -> Tensor:
        """Log-density (nats) of every real, 0 where none is stored; the shape of ``reals``."""
        return gaussian_log_prob(reals, *self(reals, symbols, labels))

    def nats(self, latents: Latents) -> tuple[Tensor, int]:
        """Negative log-likelihood of a batch, summed, and the number of reals that it is spread over."""
        stored = int((~torch.isnan(latents.reals)).sum())
        return -self.log_prob(latents.reals, latents.symbols, latents.labels).sum(), max(1, stored)

    @torch.no_grad()
    def walk(self, symbols: Tensor, labels: Tensor | None, choose: ChooseReals) -> Tensor:
        """Visit places in raster order and ask ``choose`` for the reals of each; (B, R, h, w).

        What it says of images that store none there, which their codes tell, is not looked at: NaN stands there.
        """
        base_mean, base_std = (part.flatten(2).transpose(1, 2) for part in self.gaussians(symbols))  # (B, T, R)
        stored = self.base.stores(symbols).flatten(1)  # (B, T)
        condition = self.condition(symbols, labels)
        given = condition.flatten(2).transpose(1, 2)
        state = self.network.start(condition, condition)
        chosen = torch.full_like(base_mean, torch.nan)
        before = None
        for place in range(chosen.shape[1]):
            feature = self.network.step(state, place, before)
            mean, std = self.move(feature, given[:, place], base_mean[:, place], base_std[:, place])
            values = choose(mean.double(), std.double(), stored[:, place]).to(chosen)
            chosen[:, place] = torch.where(stored[:, place, None], values, torch.nan)
            before = self.embed((chosen[:, place] - base_mean[:, place]) / base_std[:, place])
        return chosen.transpose(1, 2).unflatten(2, self.network.shape)

    def sample(self, symbols: Tensor, labels: Tensor | None, temperature: float, generator: torch.Generator) -> Tensor:
        """New reals. A density to the power 1/T is, of a Gaussian, one whose variance is T times as great."""
        return self.walk(symbols, labels, lambda mean, std, _: draw_reals(mean, std * temperature**0.5, generator))


def draw_reals(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64).to(mean.device)
    return mean + std * noise


def gaussian_log_prob(reals: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Nats; 0 where ``reals`` is NaN."""
    there = ~torch.isnan(reals)
    z = (torch.where(there, reals, mean) - mean) / std
    return torch.where(there, -z.square() / 2 - std.log() - log(2 * pi) / 2, 0.0)


def ranges(quantizer: UniformQuantizer, real_axis: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest level and the step of each real, along ``real_axis`` of ``like``; a quantizer may have one of all."""
    shape = [1] * like.dim()
    shape[real_axis] = -1
    return tuple(torch.as_tensor(part, dtype=torch.float64, device=like.device).reshape(shape)
                 for part in (quantizer.low, quantizer.step))  # fmt: skip


def level_probabilities(mean: Tensor, std: Tensor, quantizer: UniformQuantizer) -> Tensor:
    """Probability of each of a quantizer's levels under Gaussians (B, R): (B, R, levels) float64, rows sum to one.

    A level stands for all that is nearest to it, the ends for all beyond them.
    """
    low, step = (part.unsqueeze(-1) for part in ranges(quantizer, 1, mean))
    edges = low + step * (torch.arange(1, quantizer.levels, dtype=torch.float64, device=mean.device) - 0.5)
    below = torch.special.ndtr((edges - mean.double().unsqueeze(-1)) / std.double().unsqueeze(-1))
    ends = [torch.zeros_like(below[..., :1]), below, torch.ones_like(below[..., :1])]
    return (1 - BACKGROUND) * torch.cat(ends, dim=-1).diff(dim=-1) + BACKGROUND / quantizer.levels


def level_bits(levels: Tensor, mean: Tensor, std: Tensor, quantizer: UniformQuantizer) -> Tensor:
    """What each quantised real costs, ``-log2`` of its level's probability; all (B, R, ...), ``levels`` int64."""
    low, step = ranges(quantizer, 1, mean)

    def below(edge: Tensor, outside: Tensor, value: float) -> Tensor:
        return torch.where(outside, value, torch.special.ndtr((low + step * edge - mean.double()) / std.double()))

    upper = below(levels + 0.5, levels == quantizer.levels - 1, 1.0)
    lower = below(levels - 0.5, levels == 0, 0.0)
    return -torch.log2((1 - BACKGROUND) * (upper - lower) + BACKGROUND / quantizer.levels)
