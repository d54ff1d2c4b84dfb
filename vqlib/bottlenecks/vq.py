"""VQ-VAE (van den Oord et al. 2017, section 3): the decoder sees the nearest code."""

from torch import Tensor

from vqlib.bottlenecks import CodebookBottleneck, vq_losses
from vqlib.quantize import look_up, nearest_code, straight_through


class Bottleneck(CodebookBottleneck):
    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        indices = nearest_code(z_e, self.codebook)
        z_q = look_up(indices, self.codebook)
        return straight_through(z_e, z_q), vq_losses(z_e, z_q), indices

    def compress(self, z_e: Tensor) -> tuple[Tensor, None]:
        return nearest_code(z_e, self.codebook), None

    def decompress(self, indices: Tensor, continuous: None) -> Tensor:
        return look_up(indices, self.codebook)
