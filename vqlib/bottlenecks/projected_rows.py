"""Projected-Latent VQ-VAE, as its released code computes it: one gain per channel and row.

The released ``Projection`` sums over dimension 3 of a (B, D, h, w) tensor. That dimension is the image's width, so the
"vectors" are rows of single channels and an image keeps D*h free real numbers: 2,048 at the paper's size, for an
image of 3,072 values. What the paper's text describes is ``projected``.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlib.bottlenecks import CodebookBottleneck, vq_losses
from vqlib.quantize import look_up, nearest_code, project, straight_through


class Bottleneck(CodebookBottleneck):
    """``detach_code`` and ``guard``: the interventions described in ``projected``.

    relu_in_loss: the released decoder's first ReLU works in place, before the projection loss is taken, so that loss
    sees relu(P). Off by default, as the paper writes it.
    """

    dim = 3  # over w: the released axis

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        detach_code: bool = False,
        guard: float = 0.0,
        relu_in_loss: bool = False,
    ):
        super().__init__(num_embeddings, embedding_dim)
        self.detach_code, self.guard, self.relu_in_loss = detach_code, guard, relu_in_loss

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        indices = nearest_code(z_e, self.codebook)
        z_q = look_up(indices, self.codebook)
        code = z_q.detach() if self.detach_code else straight_through(z_e, z_q)
        z, _ = project(z_e, code, self.dim, self.guard)
        seen = F.relu(z) if self.relu_in_loss else z
        return z, vq_losses(z_e, z_q) | {"projection_loss": F.mse_loss(seen, z_q.detach())}, indices

    def compress(self, z_e: Tensor) -> tuple[Tensor, Tensor]:
        indices = nearest_code(z_e, self.codebook)
        _, gain = project(z_e, look_up(indices, self.codebook), self.dim, self.guard)
        return indices, gain  # (B, h, w), (B, D, h)

    def decompress(self, indices: Tensor, continuous: Tensor) -> Tensor:
        return continuous.unsqueeze(self.dim) * look_up(indices, self.codebook)

    @torch.no_grad()
    def statistics(self, counts: Tensor | None) -> dict[str, Tensor]:
        """Beside the codes' norms the least size of an entry of a code in use. A gain here divides by the norm of a
        channel's row of w entries, not of a code; where one code fills a row that norm is sqrt(w) times its entry."""
        entries = self.codebook.abs().amin(dim=1)  # (K,)
        used = entries if counts is None else torch.where(counts > 0, entries, torch.inf)
        return super().statistics(counts) | {"smallest_used_code_entry": used.min()}
