"""Bits: what a reconstruction costs, so that no error stands without its rate.

Three measures: nominal (codes and levels of fixed length); the cross-entropy under fixed tables learnt on training
images; and the length of a real stream, which comes within a fraction of a percent of the cross-entropy. The order-0
entropy of the test codes is what no such table beats.
"""

from math import ceil, log2
from typing import Any

import numpy as np
from torch import Tensor

from vqlib.bitstream import FLOAT, Codec
from vqlib.tables import Counts, cross_entropy, entropy, symbols_of

PRECISIONS = (2, 4, 6, 8)  # bits of quantised continuous latents, beside float32
GAIN_BITS = 8  # the one of them that is counted and measured everywhere
SHOWN_RANKS = 128  # of a histogram of codes by use
LISTED = 256  # an alphabet up to this size has every share listed in its own order


def nominal_rate(
    alphabets: tuple[int, ...], positions: int, reals: float, pixels: int, mask: float = 0
) -> dict[str, float | None]:
    """Bits per pixel of fixed-length codes, alone and with the continuous latents at 32 and at 8 bits each.

    Args:
        alphabets: sizes of the alphabets of the symbols at one position; () without codes.
        positions: positions of one image that carry these symbols.
        reals: continuous numbers that one image stores (a mean over images where it varies).
        pixels: pixels of one image.
        mask: bits of one image that say which numbers are stored.
    """
    codes = positions * sum(ceil(log2(size)) for size in alphabets)
    return {
        "bpp_codes": codes / pixels if alphabets else None,
        "bpp_32bit": (codes + mask + FLOAT * reals) / pixels,
        f"bpp_{GAIN_BITS}bit": (codes + mask + GAIN_BITS * reals) / pixels,
    }


class Bill:
    """What the test images cost, added up batch by batch: counts of every symbol, and the bytes of real streams."""

    def __init__(self, alphabets: tuple[int, ...], codec: Codec):
        self.codec, self.counts = codec, Counts(alphabets, codec.quantizers)
        self.images, self.positions, self.elements, self.stored = 0, 0, 0, 0
        self.bytes: dict[int | None, int] = {}  # by precision; None for the codes alone
        self.mask_bits = 0.0

    def add(self, indices: Tensor | None, continuous: Tensor | None, verify: bool = True) -> None:
        """One batch, on the CPU. With ``verify``, streams of continuous numbers are decoded; those of codes always.

        Raises:
            RuntimeError: a stream does not decode to what was encoded.
        """
        first = indices if indices is not None else continuous
        self.images += len(first)
        self.positions = 0 if indices is None else symbols_of(indices)[0][0].size
        self.counts.add(indices, continuous)
        precisions: list[int | None] = [] if indices is None else [None]
        if continuous is not None:
            precisions += [*self.codec.quantizers, FLOAT]
            self.elements += continuous.numel()
            self.stored += int((~continuous.isnan()).sum())
        for bits in precisions:
            data, mask_bits = self.codec.encode(indices, continuous, bits)
            self.bytes[bits] = self.bytes.get(bits, 0) + len(data)
            self.mask_bits += mask_bits if bits == FLOAT else 0
            if verify or bits is None:
                self.codec.verify(data, indices, continuous, bits)

    def rates(self, pixels: int) -> dict[str, Any]:
        """Bits per image of so many ``pixels``: all of a result's ``rate`` but the distortions beside it."""
        total, counts, codec = self.images * pixels, self.counts, self.codec
        alphabets = tuple(len(count) for count in counts.codes)
        reals = self.stored / self.images
        by_code = counts.masks[counts.telling] if counts.masks else np.zeros((0, 2))
        mixed = bool(by_code.all(axis=1).any()) or (self.stored < self.elements and not by_code.any())
        nominal_mask = float(counts.units.sum()) / self.images if mixed else 0
        codes = sum(cross_entropy(*pair) for pair in zip(counts.codes, codec.codes, strict=True))
        levels = {bits: cross_entropy(count, codec.levels[bits]) for bits, count in counts.levels.items()}
        levels[FLOAT] = FLOAT * self.stored
        nominal = nominal_rate(alphabets, self.positions, reals, pixels, nominal_mask)
        fixed = (nominal["bpp_codes"] or 0) + nominal_mask / pixels
        return {
            **nominal,
            "bpp_entropy": sum(entropy(c) * c.sum() for c in counts.codes) / total if alphabets else None,
            "bpp_cross_entropy": codes / total if alphabets else None,
            "bpp_bitstream": 8 * self.bytes[None] / total if alphabets else None,
            "bpp_mask": self.mask_bits / total if self.stored < self.elements else None,
            "continuous_fraction": self.stored / max(self.elements, 1),
            "numbers_per_image": reals,
            "precisions": [
                {
                    "bits": bits,
                    "bpp_nominal": fixed + bits * reals / pixels,
                    "bpp_cross_entropy": (codes + self.mask_bits + levels[bits]) / total,
                    "bpp_bitstream": 8 * self.bytes[bits] / total,
                }
                for bits in self.bytes
                if bits is not None
            ],
        }


def describe_symbols(counts: list[np.ndarray]) -> list[dict[str, Any]]:
    """Use of each of the Q symbols' alphabets, small enough to keep: see the keys."""
    return [
        {
            "alphabet": len(count),
            "perplexity": 2.0 ** entropy(count),
            "codebook_usage": float((count > 0).mean()),
            "nominal_bits": ceil(log2(len(count))),
            "entropy_bits": entropy(count),
            "ranks": (ranks := shown_ranks(len(count))).tolist(),
            "shares": (np.sort(count)[::-1] / count.sum())[ranks - 1].tolist(),
            "levels": (count / count.sum()).tolist() if len(count) <= LISTED else None,
        }
        for count in counts
    ]


def shown_ranks(size: int) -> np.ndarray:
    """All of 1..size, or SHOWN_RANKS of them at most, spaced geometrically, with the first and the last."""
    if size <= SHOWN_RANKS:
        return np.arange(1, size + 1)
    return np.unique(np.geomspace(1, size, SHOWN_RANKS).round().astype(int))
