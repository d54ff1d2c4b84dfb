"""Gain-shape quantization inside a VQ-VAE (ours): the projected model with unit codes and quantised gains.

Every position's vector becomes ``gain * shape``. The shape is the unit code c with the greatest ``|z_e.c|``, chosen
before the gain, which is then ``z_e.c`` rounded to one of 2^b levels (Sabin & Gray 1984: for unit codes this order
loses nothing, since ``|z_e - g c|^2 = |z_e|^2 - (z_e.c)^2`` at the best g). The gain may be negative. A position costs
log2 K + b bits and no real number. Nothing is divided by the norm of a code that could vanish, and the gradient goes
straight through to the encoder, as in ``vq``.

Shapes and levels are moving averages of what chose them, so neither the learning rate nor the scale of ``z_e`` matters
to them. A shape is the direction of the sum of ``gain * z_e`` over its cell, the centroid of Sabin & Gray, a level the
mean of its gains (Lloyd 1982): levels lie where the gains are, and follow when the encoder's scale drifts, which a
fixed range would not. Codes that are hardly ever chosen are put beside much chosen ones, which halves these cells, as
Linde, Buzo and Gray (1980) grow their codebooks. That needs no data from other processes, and also does for a start:
the first steps split the few random codes that data choose until all are in use.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.bottlenecks import BottleneckBase
from vqlib.distributed import summed
from vqlib.quantize import code_counts, look_up, nearest_code, perplexity, positions, straight_through

SPLIT = 0.01  # relative distance at which a split code's new half starts


class Bottleneck(BottleneckBase):
    """gain_bits: b. decay: of the moving averages, per step. revive_below: share of a code's fair share 1/K under which
    it counts as hardly ever chosen; 0 for never."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        gain_bits: int = 4,
        decay: float = 0.95,
        revive_below: float = 0.1,
    ):
        super().__init__()
        if not 1 <= gain_bits <= 12:
            raise ValueError(f"gain_bits is {gain_bits}; it must be from 1 to 12")
        self.shapes = MovingCodes(num_embeddings, embedding_dim, decay, revive_below, unit=True)
        self.levels = MovingCodes(2**gain_bits, 1, decay, revive_below, unit=False)

    @property
    def alphabets(self) -> tuple[int, ...]:
        return len(self.shapes.codes), len(self.levels.codes)

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        indices, gain = self.choose(z_e)
        quantised = self.decompress(indices, None)
        if self.training:
            self.shapes.update(indices[..., 0], z_e.detach() * gain.detach())
            self.levels.update(indices[..., 1], gain.detach())
        return straight_through(z_e, quantised), {"commitment_loss": F.mse_loss(z_e, quantised)}, indices

    def choose(self, z_e: Tensor) -> tuple[Tensor, Tensor]:
        """Shape and level of every position, int64 (B, h, w, 2), and the gain before rounding, (B, 1, h, w)."""
        codes = self.shapes.codes
        shape = nearest_code(z_e, torch.cat([codes, -codes])) % len(codes)  # the nearest of c and -c: greatest |z_e.c|
        gain = (z_e * look_up(shape, codes)).sum(dim=1, keepdim=True)  # over D
        return torch.stack([shape, nearest_code(gain, self.levels.codes)], dim=-1), gain

    def compress(self, z_e: Tensor) -> tuple[Tensor, None]:
        return self.choose(z_e)[0], None

    def decompress(self, indices: Tensor, continuous: None) -> Tensor:
        return look_up(indices[..., 1], self.levels.codes) * look_up(indices[..., 0], self.shapes.codes)

    def statistics(self, counts: Tensor | None) -> dict[str, Tensor]:
        """How many of the levels the moving average has in use."""
        return {"gain_perplexity": perplexity(self.levels.counts)}


class MovingCodes(nn.Module):
    """Codes (K, D) that are moving averages of the vectors that chose them; of length 1 where ``unit``."""

    def __init__(self, number: int, dim: int, decay: float, revive_below: float, unit: bool):
        super().__init__()
        self.decay, self.revive_below, self.unit = decay, revive_below, unit
        codes = torch.randn(number, dim)
        self.register_buffer("codes", F.normalize(codes, dim=1) if unit else codes)
        self.register_buffer("counts", torch.zeros(number))
        self.register_buffer("sums", torch.zeros(number, dim))

    @torch.no_grad()
    def update(self, indices: Tensor, vectors: Tensor) -> None:
        """Take in one batch: (B, h, w) indices and the (B, D, h, w) vectors that they stand for."""
        rows = positions(vectors).to(self.sums.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, indices.flatten(), rows)
        counts = code_counts(indices, len(self.codes)).to(self.counts.dtype)
        self.sums.lerp_(summed(sums), 1 - self.decay)
        self.counts.lerp_(summed(counts), 1 - self.decay)
        fair = self.counts.sum() / len(self.counts)
        self._follow(self.counts > 1e-3 * fair)
        self._split(self.counts < self.revive_below * fair, fair)

    def _follow(self, seen: Tensor) -> None:
        """Move the codes that are ``seen`` (K,) to their average; one that was not, or only zeros, keeps its place."""
        if self.unit:
            divisor = self.sums.norm(dim=1)
            seen = seen & (divisor > 0)
        else:
            divisor = self.counts
        average = self.sums / torch.where(seen, divisor, 1).unsqueeze(1)
        self.codes.copy_(torch.where(seen.unsqueeze(1), average, self.codes))

    def _split(self, dead: Tensor, fair: Tensor) -> None:
        """Put the n-th ``dead`` code beside the n-th most chosen one, if that has its fair share; each gets half."""
        parent = self.counts.argsort(descending=True, stable=True)[dead.cumsum(0).sub(1).clamp(min=0)]
        born = dead & (self.counts[parent] >= fair)
        halved = torch.zeros_like(self.counts).index_add_(0, parent, born.to(self.counts.dtype)) > 0
        noise = torch.randn(self.codes.shape).to(self.codes)  # drawn on the CPU: the same on any device
        beside = self.codes[parent]
        beside = beside + SPLIT * beside.norm(dim=1, keepdim=True) * noise / noise.shape[1] ** 0.5
        beside = F.normalize(beside, dim=1) if self.unit else beside
        length = self.sums[parent].norm(dim=1) if self.unit else self.counts[parent]
        for state, child in ((self.counts, self.counts[parent] / 2),
                             (self.sums, beside * (length / 2).unsqueeze(1))):  # fmt: skip
            mask = [flags.view(-1, *[1] * (state.dim() - 1)) for flags in (born, halved)]
            state.copy_(torch.where(mask[0], child, torch.where(mask[1], state / 2, state)))
        self.codes.copy_(torch.where(born.unsqueeze(1), beside, self.codes))
