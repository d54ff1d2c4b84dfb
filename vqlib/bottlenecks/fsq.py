"""Finite scalar quantization (Mentzer et al. 2023) by the library vector-quantize-pytorch: no codebook to collapse.

A linear map takes ``z_e`` to a few numbers, each is bounded and rounded to one of a few levels, and another linear map
takes them back to D. All combinations of levels count as the alphabet, and nothing holds the encoder to it: there are
no losses.
"""

from math import prod

import torch
from torch import Tensor
from vector_quantize_pytorch import FSQ

from vqlib.bottlenecks import BottleneckBase


class Bottleneck(BottleneckBase):
    """levels: of each number. K has no say: the alphabet has as many symbols as the levels have combinations."""

    def __init__(self, num_embeddings: int, embedding_dim: int, levels: list):
        super().__init__()
        self.alphabets = (prod(levels),)
        with torch.device("cpu"):  # it reads values while it is built, so it cannot be built on the meta device
            self.scalar = FSQ(levels, dim=embedding_dim)

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        z, indices = self._quantized(z_e)
        return z if self.training else self.decompress(indices, None), {}, indices

    def _quantized(self, z_e: Tensor) -> tuple[Tensor, Tensor]:
        z, indices = self.scalar(z_e)
        return z, indices.long().clamp(0, self.alphabets[0] - 1)  # of a NaN it makes any integer; the loss will tell

    def compress(self, z_e: Tensor) -> tuple[Tensor, None]:
        return self._quantized(z_e)[1], None

    def decompress(self, indices: Tensor, continuous: None) -> Tensor:
        return self.scalar.project_out(self.scalar.implicit_codebook[indices]).permute(0, 3, 1, 2)
