"""Frequency-Latent VQ-VAE, as its released code computes it: the table is little more than one batch's histogram.

The released code adds a batch's counts to the table and divides the sum by 50,000, at every forward pass, in training
and in evaluation. What earlier batches left is then less than one count, so it could decide among equally frequent
codes only, and as the table is no buffer no checkpoint keeps it; here it is left out, and the first of such codes win.
So which positions are continuous depends on what else is in the batch, in evaluation too, and on its size. A decoder
cannot know that from the codes: a second symbol, one bit, says of each position whether it is continuous. What the
paper's text describes is ``frequency``.
"""

import torch
from torch import Tensor

from vqlib.bottlenecks import vq_losses
from vqlib.bottlenecks._frequency import FrequencyBottleneck
from vqlib.distributed import summed
from vqlib.quantize import code_counts, look_up, nearest_code, straight_through


class Bottleneck(FrequencyBottleneck):
    mixes_images = True  # in eval mode too, what the decoder sees of an image depends on the batch that it comes in

    def __init__(self, num_embeddings: int, embedding_dim: int, num_frequent: int, warmup_fraction: float = 0.06):
        super().__init__(num_embeddings, embedding_dim, num_frequent, warmup_fraction, decay=0.0)

    @property
    def alphabets(self) -> tuple[int, ...]:
        return (len(self.codebook), 2)  # the code; 1 where the position is continuous

    def symbols(self, z_e: Tensor) -> Tensor:
        """Code and continuity of every position, int64 (B, h, w, 2)."""
        codes = nearest_code(z_e, self.codebook)
        counts = code_counts(codes, len(self.codebook))
        frequencies = (summed(counts) if self.training else counts) / 50_000
        return torch.stack([codes, (~self.discrete_codes(frequencies)[codes]).long()], dim=-1)

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        symbols = self.symbols(z_e)
        z_q = look_up(symbols[..., 0], self.codebook)
        if self.training:
            self.see(symbols[..., 0])  # for the log, and the warm-up
        mixed = torch.where(symbols[..., 1].bool().unsqueeze(1), z_e, z_q)
        return straight_through(z_e, mixed), vq_losses(z_e, z_q), symbols

    def compress(self, z_e: Tensor) -> tuple[Tensor, Tensor]:
        symbols = self.symbols(z_e)
        return symbols, z_e.masked_fill(symbols[..., 1].eq(0).unsqueeze(1), torch.nan)  # (B, h, w, 2), (B, D, h, w)

    def decompress(self, indices: Tensor, continuous: Tensor) -> Tensor:
        z_q = look_up(indices[..., 0], self.codebook)
        return torch.where(indices[..., 1].bool().unsqueeze(1), continuous, z_q)
