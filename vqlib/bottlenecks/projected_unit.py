"""The projected model with codes of length 1: an intervention on the suspected cause of its instability.

Everything is as in ``projected``, but the codes are divided by their norms wherever they are used, inside P and in the
losses. So ``z_q.z_q`` is 1, and no gradient is divided by it.
"""

from torch import Tensor
from torch.nn import functional as F

from vqlib.bottlenecks import CodebookBottleneck, vq_losses
from vqlib.quantize import look_up, nearest_code, project, straight_through


class Bottleneck(CodebookBottleneck):
    @property
    def unit_codes(self) -> Tensor:
        return F.normalize(self.codebook, dim=1)  # over D

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        indices = nearest_code(z_e, self.unit_codes)
        z_q = look_up(indices, self.unit_codes)
        z, _ = project(z_e, straight_through(z_e, z_q), dim=1)
        return z, vq_losses(z_e, z_q) | {"projection_loss": F.mse_loss(z, z_q.detach())}, indices

    def compress(self, z_e: Tensor) -> tuple[Tensor, Tensor]:
        indices = nearest_code(z_e, self.unit_codes)
        _, gain = project(z_e, look_up(indices, self.unit_codes), dim=1)
        return indices, gain  # (B, h, w), (B, h, w)

    def decompress(self, indices: Tensor, continuous: Tensor) -> Tensor:
        return continuous.unsqueeze(1) * look_up(indices, self.unit_codes)
