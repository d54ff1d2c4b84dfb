"""Bits: what a reconstruction costs, so that no error stands without its rate."""

from math import ceil, log2

import torch
from torch import Tensor

GAIN_BITS = 8  # the precision at which quantised continuous latents are counted, beside float32
RANGE_VALUES = 2**22  # as many values, evenly spaced, decide a quantizer's range


def nominal_rate(alphabets: tuple[int, ...], positions: int, reals: float, pixels: int) -> dict[str, float | None]:
    """Bits per pixel of fixed-length codes, alone and with the continuous latents at 32 and at 8 bits each.

    Args:
        alphabets: sizes of the alphabets of the symbols at one position; () without codes.
        positions: positions of one image that carry these symbols.
        reals: continuous numbers that one image stores (a mean over images where it varies).
        pixels: pixels of one image.
    """
    codes = positions * sum(ceil(log2(size)) for size in alphabets)
    return {
        "bpp_codes": codes / pixels if alphabets else None,
        "bpp_32bit": (codes + 32 * reals) / pixels,
        f"bpp_{GAIN_BITS}bit": (codes + GAIN_BITS * reals) / pixels,
    }


class UniformQuantizer:
    """2^bits levels, evenly spaced over a range learnt from training latents; values outside go to the ends.

    The range is the central 99.98 % of the values, so that one outlier cannot spoil it. NaN stays NaN.
    """

    def __init__(self, values: Tensor, bits: int = GAIN_BITS):
        kept = values[~torch.isnan(values)]
        kept = kept if len(kept) else torch.zeros(1)  # any range will do
        kept = kept[:: ceil(len(kept) / RANGE_VALUES)].double().sort().values
        tail = round(len(kept) * 1e-4)
        self.low, self.high = float(kept[tail]), float(kept[len(kept) - 1 - tail])
        self.levels = 2**bits
        self.step = (self.high - self.low) / (self.levels - 1) or 1.0

    def indices(self, values: Tensor) -> Tensor:
        """int64 levels, the shape of ``values``; 0 for NaN."""
        scaled = ((values.double() - self.low) / self.step).round().clamp(0, self.levels - 1)
        return scaled.nan_to_num(0).long()

    def __call__(self, values: Tensor) -> Tensor:
        """The values that a decoder would have."""
        quantised = (self.low + self.step * self.indices(values)).to(values.dtype)
        return torch.where(torch.isnan(values), values, quantised)
