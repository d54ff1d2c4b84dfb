"""Encoder and decoder of the paper, shared by every variant.

Sizes and order follow the code that the paper trained with (R. Kumar et al.), at any width.
One spatial factor of 4: an image (B, 3, H, W) becomes a latent (B, width, H/4, W/4).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """``h + f(h)`` with ``h = relu(x)``; f is conv 3x3, BN, ReLU, conv 1x1, BN.

    The released block applies its first ReLU in place, so its skip path carries relu(x), not x.
    That is written out here. ``clean_skip=True`` is the ablation ``x + f(relu(x))``.
    """

    def __init__(self, width: int, clean_skip: bool = False):
        super().__init__()
        self.clean_skip = clean_skip
        self.body = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(x)
        return (x if self.clean_skip else h) + self.body(h)


class Encoder(nn.Module):
    """Image (B, 3, H, W) in [-1, 1] to ``z_e`` (B, width, H/4, W/4). H and W are multiples of 4."""

    def __init__(self, width: int, clean_skip: bool = False):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=4, stride=2, padding=1),
            ResidualBlock(width, clean_skip),
            ResidualBlock(width, clean_skip),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    """Latent (B, width, h, w) to an image (B, 3, 4h, 4w) in [-1, 1]."""

    def __init__(self, width: int, clean_skip: bool = False):
        super().__init__()
        self.layers = nn.Sequential(
            ResidualBlock(width, clean_skip),
            ResidualBlock(width, clean_skip),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 3, kernel_size=4, stride=2, padding=1),
            nn.Tanh(),
        )
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every convolution below ``module``, as released."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
