"""The protocol ``adm`` compiled by numba: the same bytes as Pillow's in less than a third of the time.

Pillow decodes, here as elsewhere, so what is odd or damaged is judged as ever; only its resize is done anew, with its
coefficients, its fixed point and its two passes, each of which rounds. A pixel is a word of 32 bits, as in its memory.
"""

import functools
import math
from collections.abc import Callable

import numba
import numpy as np
import pyarrow
from PIL import Image

Protocol = Callable[[Image.Image, int], Image.Image]
SMALL = 2**13  # pixels; below that Pillow is quicker
BITS = 22  # of Pillow's fixed point
ONE, SEVEN_BITS, BYTE = np.uint32(1), np.uint32(0x7F7F7F7F), np.uint32(0xFF)
HALF, THIRD, SHIFT = np.uint32(1 << (BITS - 1)), np.uint32(round(2**BITS / 3)), np.uint32(BITS)


def adm(picture: Image.Image, size: int, reference: Protocol) -> np.ndarray:
    """``reference(picture, size)`` as (size, size, 3) uint8, where it can be had here; else from ``reference`` itself.

    Of a picture that is more than twice as high as wide some versions of Pillow resize the rows first, which rounds
    otherwise. Halving makes of 7 / 4 at most 7 / 4 * (1 + 1 / size) < 2, so no such picture is resized here.
    """
    is_thin = 4 * picture.height > 7 * picture.width or picture.width > 4 * picture.height
    if is_thin or picture.width * picture.height < SMALL or size < 8:
        return np.asarray(reference(picture, size))
    try:
        pixels = _words(picture)
    except ValueError:  # a large picture lies in several blocks of memory
        return np.asarray(reference(picture, size))
    while min(pixels.shape) >= 2 * size:
        pixels = _halve(pixels, *_halving(pixels.shape[1]), *_halving(pixels.shape[0]))
    scale = size / min(pixels.shape)
    across, down = (_bicubic(side, round(side * scale), size) for side in reversed(pixels.shape))
    for taps in (across, down):
        pixels = _weigh_rows(np.ascontiguousarray(pixels.T).view(np.uint8), *taps).view(np.uint32)
    channels = pixels.view(np.uint8).reshape(size, size, 4)
    return np.stack([channels[:, :, channel] for channel in range(3)], axis=2)


def equals(reference: Protocol) -> bool:
    """Whether ``adm`` gives what ``reference`` gives for noise of even and odd sides, wide and high."""
    draw = np.random.default_rng(0)
    for width, height in [(96, 144), (150, 100), (131, 93), (95, 166), (251, 188), (257, 65), (128, 128)]:
        picture = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for size in (8, 32, 112):
            if not np.array_equal(adm(picture, size, reference), np.asarray(reference(picture, size))):
                return False
    return True


def _words(picture: Image.Image) -> np.ndarray:
    """(H, W) uint32, read-only: the memory of an RGB picture itself. Raises ValueError if it is not in one piece."""
    values = pyarrow.array(picture).flatten().to_numpy()
    return values.view(np.uint32).reshape(picture.height, picture.width)


@functools.lru_cache(maxsize=1024)
def _halving(side: int) -> tuple[np.ndarray, int]:
    """BOX from ``side`` to half of it: the first input of each output (n,) int64, and which output has 3 inputs, or -1.

    All others are means of 2. Of an odd side one in the middle has 3, or none, as the rounding of doubles has it.
    """
    inputs = [[low + k for k, weight in enumerate(row) if weight] for low, row in _taps(side, side // 2, _box, 0.5)]
    threes = [output for output, of_output in enumerate(inputs) if len(of_output) == 3]
    assert len(threes) <= 1 and all(len(of_output) in (2, 3) for of_output in inputs)
    return np.array([of_output[0] for of_output in inputs]), threes[0] if threes else -1


@functools.lru_cache(maxsize=1024)
def _bicubic(side: int, outputs: int, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """For BICUBIC from ``side`` to ``outputs``, of which ``kept`` in the centre are wanted.

    Returns:
        The first input of each (kept,) int64, and its weights (kept, K) int32 in units of 2 ** -BITS, zeros at the end.
    """
    start = (outputs - kept) // 2
    rows = _taps(side, outputs, _cubic, 2.0)[start : start + kept]
    widest = max(len(row) for _, row in rows)
    first = [min(low, side - widest) for low, _ in rows]  # so that every row of weights stays inside
    padded = [[0] * (low - at) + row + [0] * widest for at, (low, row) in zip(first, rows, strict=True)]
    return np.array(first), np.array([row[:widest] for row in padded], np.int32)


def _taps(side: int, outputs: int, filter: Callable[[float], float], support: float) -> list[tuple[int, list[int]]]:
    """(first input, weights) of each output: Pillow's ``precompute_coeffs``, the same operations in the same order."""
    scale = side / outputs
    support, squeeze = support * max(scale, 1.0), 1 / max(scale, 1.0)
    rows = []
    for output in range(outputs):
        centre = (output + 0.5) * scale
        low, high = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), side)
        weights = [filter((k + low - centre + 0.5) * squeeze) for k in range(high - low)]
        total = functools.reduce(float.__add__, weights)  # as Pillow adds; sum() of Python 3.12 compensates
        rows.append((low, [math.trunc(math.copysign(0.5, w) + w / total * 2**BITS) for w in weights]))
    return rows


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _cubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


@numba.njit(cache=True)
def _mean_of_2(a, b):
    """Words of 4 bytes each; (a + b + 1) // 2 of every byte."""
    return (a | b) - (((a ^ b) >> ONE) & SEVEN_BITS)


@numba.njit(cache=True)
def _mean_of_3(a, b, c):
    result = np.uint32(0)
    for byte in range(4):
        shift = np.uint32(8 * byte)
        total = ((a >> shift) & BYTE) + ((b >> shift) & BYTE) + ((c >> shift) & BYTE)
        result |= ((total * THIRD + HALF) >> SHIFT) << shift
    return result


@numba.njit(cache=True)
def _halve(pixels, across, three_across, down, three_down):
    """BOX from (H, W) to (H // 2, W // 2) uint32, the columns first; the arguments are ``_halving`` of W and of H."""
    out = np.empty((len(down), len(across)), np.uint32)
    rows = np.empty((3, len(across)), np.uint32)
    for y in range(len(down)):
        for k in range(3 if y == three_down else 2):
            row, halved = pixels[down[y] + k], rows[k]
            for x in range(len(across)):
                halved[x] = _mean_of_2(row[across[x]], row[across[x] + 1])
            if three_across >= 0:
                x = across[three_across]
                halved[three_across] = _mean_of_3(row[x], row[x + 1], row[x + 2])
        for x in range(len(across)):
            if y == three_down:
                out[y, x] = _mean_of_3(rows[0, x], rows[1, x], rows[2, x])
            else:
                out[y, x] = _mean_of_2(rows[0, x], rows[1, x])
    return out


@numba.njit(cache=True)
def _weigh_rows(pixels, first, weights):
    """(kept, C) uint8 from (n, C) uint8: each row a weighted mean of rows, as ``_bicubic`` has them."""
    kept, inputs = weights.shape
    out = np.empty((kept, pixels.shape[1]), np.uint8)
    totals = np.empty(pixels.shape[1], np.int32)
    for y in range(kept):
        totals[:] = 1 << (BITS - 1)
        for k in range(inputs):
            row, weight = pixels[first[y] + k], weights[y, k]
            for x in range(len(totals)):
                totals[x] += np.int32(row[x]) * weight
        for x in range(len(totals)):
            out[y, x] = min(max(totals[x] >> BITS, 0), 255)
    return out
