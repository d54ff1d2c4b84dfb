"""Frequency and projection combined, the paper's section 3.2, which its author did not run.

``z = M z_q + (1-M) P(z_e, z_q)``: as in ``frequency``, but where the code is rare the decoder sees the projection on it
as in ``projected``. A continuous position costs its code and one real number; M costs nothing. The author names no
losses. Here they are those of ``projected``, the projection loss taken where the decoder sees a projection, as a mean
over every element. So S = K is ``vq`` and S = 0 is ``projected``.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlib.bottlenecks import vq_losses
from vqlib.bottlenecks._frequency import FrequencyBottleneck
from vqlib.quantize import look_up, nearest_code, project, straight_through


class Bottleneck(FrequencyBottleneck):
    """``detach_code`` and ``guard`` are those of ``projected``, the others those of ``frequency``."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        num_frequent: int,
        warmup_fraction: float = 0.06,
        decay: float = 0.99,
        detach_code: bool = False,
        guard: float = 0.0,
    ):
        super().__init__(num_embeddings, embedding_dim, num_frequent, warmup_fraction, decay)
        self.detach_code, self.guard = detach_code, guard

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        indices = nearest_code(z_e, self.codebook)
        z_q = look_up(indices, self.codebook)
        discrete = self.see(indices).unsqueeze(1)
        through = straight_through(z_e, z_q)
        projected, _ = project(z_e, z_q.detach() if self.detach_code else through, 1, self.guard)  # over D
        compared = torch.where(discrete, z_q.detach(), projected)
        losses = vq_losses(z_e, z_q) | {"projection_loss": F.mse_loss(compared, z_q.detach())}
        return torch.where(discrete, through, projected), losses, indices

    def compress(self, z_e: Tensor) -> tuple[Tensor, Tensor]:
        indices = nearest_code(z_e, self.codebook)
        _, gain = project(z_e, look_up(indices, self.codebook), 1, self.guard)
        return indices, gain.masked_fill(self.discrete(indices), torch.nan)  # (B, h, w), (B, h, w)

    def decompress(self, indices: Tensor, continuous: Tensor) -> Tensor:
        z_q = look_up(indices, self.codebook)
        return torch.where(self.discrete(indices).unsqueeze(1), z_q, continuous.unsqueeze(1) * z_q)
