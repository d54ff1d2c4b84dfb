"""How far a reconstruction is from its original: MSE, PSNR and SSIM of every image.

MSE is on [-1, 1], as in the paper. PSNR (dB) and SSIM (Wang et al. 2004, 11x11 Gaussian window) are taken after
rounding both images to 8 bits. SSIM is the mean over every pixel, images mirrored at their borders, as torchmetrics has
it; Wang's own and scikit-image's leaves out the 5 pixels next to a border. The window is applied as two small matrix
products, twice as fast for a 32-pixel image as the convolution of torchmetrics, to which a test holds it.
"""

import functools

import torch
from torch import Tensor

MEASURES = ("mse", "psnr", "ssim")
WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class Reference:
    """Originals (B, 3, H, W) in [-1, 1], with what comparing several reconstructions with them has in common."""

    def __init__(self, x: Tensor):
        self.x, self.pixels = x, to_8_bits(x).contiguous()
        # Variances are taken about a value near the mean: less is lost to cancellation in float32.
        self.centre = self.pixels.mean(dim=(2, 3), keepdim=True)
        shifted = self.pixels - self.centre
        self.mean, square = blurred(torch.stack((shifted, shifted.square())))
        self.variance = square - self.mean.square()

    def distortion(self, y: Tensor) -> dict[str, Tensor]:
        """``mse``, ``psnr`` and ``ssim`` of every image, (B,) each, of reconstructions (B, 3, H, W)."""
        pixels = to_8_bits(y).contiguous()
        error = (self.pixels - pixels).square().flatten(1).mean(dim=1)
        return {
            "mse": (self.x - y).square().flatten(1).mean(dim=1),
            # no error counts as one value off by one
            "psnr": 10 * torch.log10(255**2 / error.clamp(min=1 / pixels[0].numel())),
            "ssim": self._ssim(pixels),
        }

    def _ssim(self, pixels: Tensor) -> Tensor:
        a, b = self.pixels - self.centre, pixels - self.centre
        mean, square, product = blurred(torch.stack((b, b.square(), a * b)))
        variance, covariance = square - mean.square(), product - self.mean * mean
        one, other = self.mean + self.centre, mean + self.centre
        luminance = (2 * one * other + C1) / (one.square() + other.square() + C1)
        return (luminance * (2 * covariance + C2) / (self.variance + variance + C2)).flatten(1).mean(dim=1)


def distortion(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """``mse``, ``psnr`` and ``ssim`` of every image, (B,) each, between (B, 3, H, W) tensors in [-1, 1]."""
    return Reference(x).distortion(y)


class Means:
    """Means over images of named numbers, added up batch by batch."""

    def __init__(self):
        self.sums: dict[str, float] = {}
        self.images: dict[str, int] = {}

    def add(self, found: dict[str, Tensor]) -> None:
        for key, value in found.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value.double().sum())
            self.images[key] = self.images.get(key, 0) + len(value)

    def get(self, key: str) -> float | None:
        return self.sums[key] / self.images[key] if key in self.sums else None


def to_8_bits(x: Tensor) -> Tensor:
    """[-1, 1] to whole numbers 0..255, float32."""
    return ((x + 1) * 127.5).round().clamp(0, 255)


def blurred(x: Tensor) -> Tensor:
    """(..., H, W) under SSIM's Gaussian window, mirrored about the border pixels."""
    down, across = (_window(size).to(x) for size in x.shape[-2:])
    return down @ x @ across.T


@functools.lru_cache
def _window(size: int) -> Tensor:
    """(size, size): row i weighs the pixels of a line for its i-th output."""
    offsets = torch.arange(WINDOW) - WINDOW // 2
    weights = torch.exp(-(offsets.double() / SIGMA).square() / 2)
    places = (torch.arange(size)[:, None] + offsets).abs() % max(2 * (size - 1), 1)
    places = torch.minimum(places, 2 * (size - 1) - places)  # mirrored
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(
        1, places, (weights / weights.sum()).expand(size, -1)
    )
