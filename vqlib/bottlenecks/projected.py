"""Projected-Latent VQ-VAE, as the paper's section 2.1 says it: one gain per position.

The decoder sees ``P(z_e, z_q)``, the projection of each position's vector on its nearest code, so a position costs a
code and a real number. (The released code projects along another axis: ``projected_rows``.)
"""

from torch import Tensor
from torch.nn import functional as F

from vqlib.bottlenecks import CodebookBottleneck, vq_losses
from vqlib.quantize import look_up, nearest_code, project, straight_through


class Bottleneck(CodebookBottleneck):
    """``detach_code`` and ``guard`` are interventions on the suspected cause of instability; the paper has neither.

    detach_code: no gradient reaches the encoder through ``z_q`` inside P (as released, it flows straight through).
    guard: added to ``z_q.z_q`` in the denominator; acts once it is of that size, about 1e-4 at initialisation.
    """

    dim = 1  # over D

    def __init__(self, num_embeddings: int, embedding_dim: int, detach_code: bool = False, guard: float = 0.0):
        super().__init__(num_embeddings, embedding_dim)
        self.detach_code, self.guard = detach_code, guard

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        indices = nearest_code(z_e, self.codebook)
        z_q = look_up(indices, self.codebook)
        code = z_q.detach() if self.detach_code else straight_through(z_e, z_q)
        z, _ = project(z_e, code, self.dim, self.guard)
        return z, vq_losses(z_e, z_q) | {"projection_loss": F.mse_loss(z, z_q.detach())}, indices

    def compress(self, z_e: Tensor) -> tuple[Tensor, Tensor]:
        indices = nearest_code(z_e, self.codebook)
        _, gain = project(z_e, look_up(indices, self.codebook), self.dim, self.guard)
        return indices, gain  # (B, h, w), (B, h, w)

    def decompress(self, indices: Tensor, continuous: Tensor) -> Tensor:
        return continuous.unsqueeze(self.dim) * look_up(indices, self.codebook)
