"""Frequency-Latent VQ-VAE (the paper's section 2.2): rare codes are not used, the decoder sees ``z_e`` there.

``z = M z_q + (1-M) z_e``, where M keeps the positions whose code is among the S most frequent. A decoder knows M from
the codes and the table, which the model holds, so no bit is spent on it; a continuous position costs its code and D
real numbers. As the paper says it, the table is an average over training, kept with the model and frozen in evaluation.
(The released code forgets it at every batch: ``frequency_released``.) S = K is ``vq``; at S = 0 the decoder sees
``z_e`` alone.
"""

import torch
from torch import Tensor

from vqlib.bottlenecks import vq_losses
from vqlib.bottlenecks._frequency import FrequencyBottleneck
from vqlib.quantize import look_up, nearest_code, straight_through


class Bottleneck(FrequencyBottleneck):
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        num_frequent: int,
        warmup_fraction: float = 0.06,
        decay: float = 0.99,
    ):
        super().__init__(num_embeddings, embedding_dim, num_frequent, warmup_fraction, decay)

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        indices = nearest_code(z_e, self.codebook)
        z_q = look_up(indices, self.codebook)
        mixed = torch.where(self.see(indices).unsqueeze(1), z_q, z_e)
        return straight_through(z_e, mixed), vq_losses(z_e, z_q), indices

    def compress(self, z_e: Tensor) -> tuple[Tensor, Tensor]:
        indices = nearest_code(z_e, self.codebook)
        return indices, z_e.masked_fill(self.discrete(indices).unsqueeze(1), torch.nan)  # (B, h, w), (B, D, h, w)

    def decompress(self, indices: Tensor, continuous: Tensor) -> Tensor:
        return torch.where(self.discrete(indices).unsqueeze(1), look_up(indices, self.codebook), continuous)
