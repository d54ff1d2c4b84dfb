"""Priors: models of what a bottleneck lets through, p(symbols) p(reals | symbols), from which new images are drawn.

They work through a bottleneck's ``compress`` and ``decompress`` alone: a new bottleneck has a prior with no edit here.

symbols
    int64 (B, h, w, Q): the Q symbols of every position, with the sizes ``alphabets``. ``codes`` models them.
reals
    float (B, R, h, w) or, for one set of reals per row, (B, R, h, 1); NaN where nothing is stored. ``reals`` models
    them given the symbols.
labels
    int64 (B,), or None where there is one class.

A *network* (``pixelcnn``, ``transformer``; there is no registry) carries what is known along the raster order:

``Network(channels, layers, shape, ...)``
    for a grid of ``shape`` (h, w).
``forward(x, condition) -> features``
    all (B, C, h, w); features at (i, j) depend on ``x`` at earlier positions only, and on ``condition`` (which may be
    (B, C, 1, 1)) at any position.
``start(x, condition) -> state`` and ``step(state, place, before) -> feature``
    the same one position at a time, with what earlier positions left in ``state``: ``before`` (B, C) is ``x`` at
    ``place - 1``, None at the first; the feature is (B, C). ``x`` gives ``start`` batch size, type and device.
"""

import importlib

from torch import nn


def make_network(name: str, channels: int, layers: int, shape: tuple[int, int]) -> nn.Module:
    """``Network`` of the file ``vqlib/priors/<name>.py``."""
    return importlib.import_module(f"{__name__}.{name}").Network(channels, layers, shape)
