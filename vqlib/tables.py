"""What symbols occur how often: counts, entropies, and the fixed tables that an entropy coder works with.

Symbols are what ``compress`` of a bottleneck gives: Q code symbols a position, the mask of what continuous numbers are
stored, and these numbers' levels after quantization. Each has a table of its own, learnt on training images; as the
weights, tables belong to the decoder and cost no bits.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vqlib.uniform import UniformQuantizer


class Counts:
    """Histograms of symbols, added up batch by batch.

    Attributes:
        codes: one (K,) for each of the Q symbols of a position.
        masks: for each symbol (K, 2), positions without and with continuous numbers, by that symbol.
        units: (2,) the same whatever the symbol, also for masks whose entries are no positions.
        levels: for each precision (groups, 2^bits); groups are channels that have ranges of their own, or 1.
    """

    def __init__(self, alphabets: tuple[int, ...], quantizers: Mapping[int, UniformQuantizer]):
        self.quantizers = quantizers
        self.codes = [np.zeros(size, np.int64) for size in alphabets]
        self.masks, self.units = [np.zeros((size, 2), np.int64) for size in alphabets], np.zeros(2, np.int64)
        self.levels = {bits: np.zeros((one.groups, one.levels), np.int64) for bits, one in quantizers.items()}

    @property
    def telling(self) -> int:
        """The symbol that tells most about whether a position has continuous numbers; the first of equal ones."""
        unsure = [cross_entropy(mask, smoothed(mask)) for mask in self.masks]
        return int(np.argmin(unsure)) if unsure else 0

    def add(self, indices: Tensor | None, continuous: Tensor | None) -> None:
        """``indices`` (B, h, w) or (B, h, w, Q) and ``continuous`` (B, ...), both on the CPU."""
        if indices is not None:
            for count, symbols in zip(self.codes, symbols_of(indices), strict=True):
                count += np.bincount(symbols.ravel(), minlength=len(count))
        if continuous is None:
            return
        stored = ~np.isnan(continuous.numpy())
        units, by_code = mask_units(stored, None if indices is None else indices.shape[:3])
        self.units += np.bincount(units.ravel(), minlength=2)
        if by_code:
            for mask, symbols in zip(self.masks, symbols_of(indices), strict=True):
                mask += np.bincount((2 * symbols + units).ravel(), minlength=mask.size).reshape(-1, 2)
        for bits, quantizer in self.quantizers.items():
            self.levels[bits] += level_counts(quantizer, continuous, stored)


def level_counts(quantizer: UniformQuantizer, continuous: Tensor, stored: np.ndarray) -> np.ndarray:
    """(groups, levels): how often each level is stored."""
    levels = quantizer.indices(continuous)
    if quantizer.axis is not None:
        shape = [1] * levels.dim()
        shape[quantizer.axis] = -1
        levels += quantizer.levels * torch.arange(quantizer.groups).view(shape)
    flat = levels.numpy() if stored.all() else levels.numpy()[stored]
    return np.bincount(flat.ravel(), minlength=quantizer.groups * quantizer.levels).reshape(quantizer.groups, -1)


def symbols_of(indices: Tensor) -> list[np.ndarray]:
    """The Q symbols of (B, h, w) or (B, h, w, Q) indices, int64 (B, h, w) each."""
    return [part.numpy() for part in (indices.unsqueeze(-1) if indices.dim() == 3 else indices).unbind(-1)]


def mask_units(stored: np.ndarray, positions: tuple[int, ...] | None) -> tuple[np.ndarray, bool]:
    """The mask (B, ...) with one entry for all channels of a position, where they go together.

    Returns:
        int64 0 and 1, and whether its entries are the ``positions`` (B, h, w) that have codes.
    """
    if stored.ndim == 4 and (stored == stored[:, :1]).all():
        stored = stored[:, 0]
    return stored.astype(np.int64), positions is not None and stored.shape == tuple(positions)


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, none of them zero: half a count is added to each (Krichevsky, Trofimov)."""
    counts = counts + 0.5
    return counts / counts.sum(axis=-1, keepdims=True)


def entropy(counts: np.ndarray) -> float:
    """Bits per symbol of a histogram (K,): the least mean length of a code that knows this very histogram."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log2(share)).sum()) + 0.0


def cross_entropy(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Bits in all for the counted symbols under fixed tables, both (..., K)."""
    return float(-(counts * np.log2(probabilities)).sum()) + 0.0
