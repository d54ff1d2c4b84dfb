"""SimVQ (Zhu et al. 2024) by the library vector-quantize-pytorch: a control against the collapse of the codebook.

The codes are a learnt linear map of fixed random vectors, so that every code moves whenever one is chosen. As the
library recommends, the gradient passes by the rotation trick (Fifty et al. 2024).
"""

from torch import Tensor
from vector_quantize_pytorch import SimVQ

from vqlib.bottlenecks import BottleneckBase, vq_losses
from vqlib.quantize import look_up, nearest_code


class Bottleneck(BottleneckBase):
    def __init__(self, num_embeddings: int, embedding_dim: int, rotation: bool = True):
        super().__init__()
        self.alphabets = (num_embeddings,)
        self.codes = SimVQ(embedding_dim, num_embeddings, channel_first=True, rotation_trick=rotation)

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        if self.training:
            z, indices, _ = self.codes(z_e)
            z_q = look_up(indices, self.codes.codebook)
        else:
            indices = nearest_code(z_e, self.codes.codebook)
            z = z_q = look_up(indices, self.codes.codebook)
        return z, vq_losses(z_e, z_q), indices

    def compress(self, z_e: Tensor) -> tuple[Tensor, None]:
        return nearest_code(z_e, self.codes.codebook), None

    def decompress(self, indices: Tensor, continuous: None) -> Tensor:
        return look_up(indices, self.codes.codebook)
