"""Uniform scalar quantization of continuous latents, with a range learnt from training latents."""

from math import ceil

import numpy as np
import torch
from torch import Tensor

RANGE_VALUES = 2**22  # as many values, evenly spaced, decide the ranges
TRIED_VALUES = 2**12  # of each group, to tell candidates for its range apart
TAILS = (1e-4, 1e-3, 0.01, 0.02, 0.04, 0.07, 0.1)  # shares of the values that a range may leave outside at either end


class UniformQuantizer:
    """2^bits levels, evenly spaced over a range; values outside go to the ends. NaN stays NaN.

    Of the central ranges that leave out TAILS the one is taken that errs least over the training values: all but the
    outliers where there are many levels, a narrower one where there are few. With ``axis`` every place along it, a
    channel for example, has a range of its own.
    """

    def __init__(self, values: Tensor, bits: int, axis: int | None = None):
        self.levels, self.axis = 2**bits, axis
        groups = values.unsqueeze(0) if axis is None else values.movedim(axis, 0)
        groups = groups.reshape(len(groups), -1)
        groups = groups[:, :: ceil(groups.numel() / RANGE_VALUES)].float()
        low, step = zip(*(self._range(group) for group in groups.numpy()), strict=True)
        self.low, self.step = torch.tensor(low), torch.tensor(step)  # float32

    @property
    def groups(self) -> int:
        """Ranges: 1, or the size of the axis."""
        return len(self.low)

    @property
    def high(self) -> Tensor:
        """The greatest value of each range; ``low`` is the least."""
        return self.low + self.step * (self.levels - 1)

    def _range(self, values: np.ndarray) -> tuple[float, float]:
        kept = np.sort(values[~np.isnan(values)])
        if len(kept) == 0:
            return 0.0, 1.0  # nothing was stored here: any range will do
        tried, best = None, (float("inf"), 0.0, 1.0)
        for tail in TAILS:
            outside = round(len(kept) * tail)
            low, high = float(kept[outside]), float(kept[len(kept) - 1 - outside])
            if tried is None:  # an outlier of any size must not decide
                tried = kept[outside : len(kept) - outside].astype(np.float64)
                tried = tried[:: ceil(len(tried) / TRIED_VALUES)]
            step = (high - low) / (self.levels - 1) or 1.0
            levels = ((tried - low) / step).round().clip(0, self.levels - 1)
            error = float(np.square(low + step * levels - tried).sum())
            best = min(best, (error, low, step), key=lambda candidate: candidate[0])
        return best[1:]

    def indices(self, values: Tensor) -> Tensor:
        """int64 levels, the shape of ``values``; 0 for NaN."""
        scaled = values.float() - self._along(self.low, values)
        scaled.div_(self._along(self.step, values)).round_().clamp_(0, self.levels - 1)
        return scaled.nan_to_num_(0).long()

    def values(self, indices: Tensor) -> Tensor:
        """float32, what a decoder has for levels."""
        return indices.float().mul_(self._along(self.step, indices)).add_(self._along(self.low, indices))

    def __call__(self, values: Tensor) -> Tensor:
        """The values that a decoder would have."""
        return torch.where(torch.isnan(values), values, self.values(self.indices(values)).to(values.dtype))

    def _along(self, numbers: Tensor, like: Tensor) -> Tensor:
        shape = [1] * like.dim()
        if self.axis is not None:
            shape[self.axis] = -1
        return numbers.to(like.device).view(shape)
