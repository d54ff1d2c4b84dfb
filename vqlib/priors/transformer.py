"""A causal transformer over positions in raster order: pre-norm blocks on torch's scaled_dot_product_attention.

When sampling, keys and values of earlier positions are kept, so that a step costs one position.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

HEAD = 32  # channels of an attention head, where they divide the network's


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``. ``x`` is (B, T, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = channels // HEAD if channels % HEAD == 0 else 1
        self.norm_attention, self.norm_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor, cache: Tensor | None = None, place: int = 0) -> Tensor:
        """Without a cache, all positions at once; with one (2, B, heads, T, C/heads), x is the position ``place``."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            cache[0, :, :, place], cache[1, :, :, place] = k[:, :, 0], v[:, :, 0]
            k, v = cache[:, :, :, : place + 1]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x))


class Network(nn.Module):
    def __init__(self, channels: int, layers: int, shape: tuple[int, int]):
        super().__init__()
        self.shape = shape
        self.first = nn.Parameter(torch.randn(channels) * 0.02)  # stands before the first position
        self.rows = nn.Parameter(torch.randn(shape[0], 1, channels) * 0.02)
        self.columns = nn.Parameter(torch.randn(1, shape[1], channels) * 0.02)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)

    def where(self, condition: Tensor) -> Tensor:
        """What is known of a position before anything is drawn, (B, T, C): its place and the condition there."""
        places = (self.rows + self.columns).flatten(0, 1)  # (T, C)
        return places + condition.expand(-1, -1, *self.shape).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        sequence = x.flatten(2).transpose(1, 2)  # (B, T, C)
        first = self.first.to(x.dtype).expand(len(x), 1, -1)
        hidden = torch.cat([first, sequence[:, :-1]], dim=1) + self.where(condition)
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):  # the others' gradients differ from run to run
            for block in self.blocks:
                hidden = block(hidden)
        return self.norm(hidden).transpose(1, 2).unflatten(2, self.shape)

    def start(self, x: Tensor, condition: Tensor) -> dict[str, Tensor | list[Tensor]]:
        length = self.shape[0] * self.shape[1]
        sizes = [(2, len(x), block.heads, length, x.shape[1] // block.heads) for block in self.blocks]
        return {"where": self.where(condition), "caches": [x.new_zeros(size) for size in sizes]}

    def step(self, state: dict[str, Tensor | list[Tensor]], place: int, before: Tensor | None) -> Tensor:
        here = state["where"][:, place]
        hidden = ((self.first if before is None else before) + here).unsqueeze(1)  # (B, 1, C)
        for block, cache in zip(self.blocks, state["caches"], strict=True):
            hidden = block(hidden, cache, place)
        return self.norm(hidden)[:, 0]
