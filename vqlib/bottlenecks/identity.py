"""No bottleneck: the decoder sees ``z_e``. A lower bound on this network's error, at no finite rate."""

from torch import Tensor

from vqlib.bottlenecks import BottleneckBase


class Bottleneck(BottleneckBase):
    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], None]:
        return z_e, {}, None

    def compress(self, z_e: Tensor) -> tuple[None, Tensor]:
        return None, z_e  # (B, D, h, w)

    def decompress(self, indices: None, continuous: Tensor) -> Tensor:
        return continuous
