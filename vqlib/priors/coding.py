"""A real bitstream under a prior: a range coder (constriction) with the prior's tables, and its exact inverse.

Encoder and decoder walk the same path with cached state, in the same batch, and turn probabilities into the same whole
numbers before the coder sees them; so a stream can be read where it was written, on the same kind of machine with the
same number of threads. Another machine's sums may differ in the last bit, and then it reads noise.
"""

from collections.abc import Callable, Iterator

import constriction
import numpy as np
import torch
from torch import Tensor

from vqlib.priors.latents import Latents
from vqlib.priors.model import PriorModel
from vqlib.priors.reals import level_probabilities, ranges
from vqlib.uniform import UniformQuantizer


class NoStreamError(Exception):
    """Latents that cannot be written under the prior; the message is the reason."""


PRECISION = 24  # bits of a table's whole numbers
FAMILY = constriction.stream.model.Categorical(perfect=False)


def whole_numbers(probabilities: Tensor) -> np.ndarray:
    """Tables (B, K) as whole numbers of at least 1 that sum to at most 2^PRECISION, as float64."""
    size = probabilities.shape[1]
    return (probabilities.double() * (2**PRECISION - size)).floor().add(1).cpu().numpy()


def encode(prior: PriorModel, latents: Latents, quantizer: UniformQuantizer | None) -> np.ndarray:
    """The compressed images, 32-bit words: class, symbols, and reals as levels of ``quantizer``.

    Raises:
        NoStreamError: reals are stored where the prior, by the symbols, expects none, or the other way round. Nothing
            is written that says where they are.
    """
    if latents.reals is not None:
        there = ~torch.isnan(latents.reals)
        wrong = (there != prior.reals.base.stores(latents.symbols.to(_device(prior))).cpu()[:, None]).any(dim=1)
        if wrong.any():
            raise NoStreamError(f"at {int(wrong.sum())} of {wrong.numel()} places the prior does not know from the "
                                "codes, unseen in training, whether real numbers are stored")  # fmt: skip
    coder = constriction.stream.queue.RangeEncoder()
    known = _in_order(latents, quantizer, prior)

    def put(table: np.ndarray) -> np.ndarray:
        symbols = next(known)
        coder.encode(symbols.astype(np.int32), FAMILY, table)
        return symbols

    _walk(prior, len(latents), put, quantizer)
    return coder.get_compressed()


def decode(prior: PriorModel, words: np.ndarray, count: int, quantizer: UniformQuantizer | None) -> Latents:
    """What ``encode`` was given, its reals as the quantizer leaves them."""
    coder = constriction.stream.queue.RangeDecoder(words)
    return _walk(prior, count, lambda table: coder.decode(FAMILY, table), quantizer)


def _walk(
    prior: PriorModel, count: int, code: Callable[[np.ndarray], np.ndarray], quantizer: UniformQuantizer | None
) -> Latents:
    """Code class, symbols and levels of ``count`` images; ``code`` turns tables (B, K) into symbols (B,)."""
    device = _device(prior)

    def choose(probabilities: Tensor) -> Tensor:
        return torch.from_numpy(code(whole_numbers(probabilities)).astype(np.int64)).to(device)

    def choose_reals(mean: Tensor, std: Tensor, stored: Tensor) -> Tensor:
        tables = level_probabilities(mean, std, quantizer)  # (B, R, levels)
        levels = torch.zeros(mean.shape, dtype=torch.int64, device=device)
        for channel in range(mean.shape[1] if stored.any() else 0):
            levels[stored, channel] = choose(tables[stored, channel])
        low, step = ranges(quantizer, 1, mean)
        return low + step * levels

    uniform = torch.full((count, prior.classes), 1 / prior.classes, dtype=torch.float64)
    labels = choose(uniform) if prior.classes > 1 else torch.zeros(count, dtype=torch.int64, device=device)
    symbols = prior.codes[prior.chosen].walk(labels, count, lambda logs: choose(logs.exp()))
    reals = None if prior.reals is None else prior.reals.walk(symbols, labels, choose_reals).cpu()
    return Latents(symbols.cpu(), reals, labels.cpu())


def _device(prior: PriorModel) -> torch.device:
    return next(prior.parameters()).device


def _in_order(latents: Latents, quantizer: UniformQuantizer | None, prior: PriorModel) -> Iterator[np.ndarray]:
    """The known symbols in the order in which ``_walk`` asks for them, (B,) each."""
    if prior.classes > 1:
        yield latents.labels.numpy()
    for place in latents.symbols.flatten(1, 2).unbind(1):
        for symbol in place.unbind(1):
            yield symbol.numpy()
    if latents.reals is not None:
        levels, there = quantizer.indices(latents.reals).flatten(2), ~torch.isnan(latents.reals).flatten(2)
        for place in range(levels.shape[2]):
            stored = there[:, 0, place]
            for channel in range(levels.shape[1] if stored.any() else 0):
                yield levels[stored, channel, place].numpy()
