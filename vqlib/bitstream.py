"""A real file's bits: what ``compress`` gives, through a range coder and back, exactly.

A stream holds a batch of images, in this order: the code symbols; which continuous numbers are stored; their levels,
channel by channel. The coder is constriction's (Bamler 2022, arXiv:2201.01741), with the fixed tables of
``vqlib.tables``. At 32 bits, the numbers' floats follow as they are. Nothing about a batch is known beforehand but how
many images it has, so a stream decodes alone.

**The mask.** Where the continuous numbers are stored at the positions of some codes and not at others, the mask costs
next to nothing: each code of the batch gets one bit, under a probability learnt from training. Where one code's
positions are of both kinds, each position gets a bit, under that same table. Which of the two, and whether there is a
mask at all, is said in two bits at the beginning. Of several symbols at a position, "code" here is the one that told
most about the mask in training.
"""

from dataclasses import dataclass

import constriction
import numpy as np
import torch
from torch import Tensor

from vqlib.tables import Counts, mask_units, smoothed, symbols_of

FLOAT = 32  # bits: no quantization
ALL, BY_CODE, BY_UNIT, BY_ELEMENT = range(4)  # how a stream says what is stored

Categorical, Uniform = constriction.stream.model.Categorical, constriction.stream.model.Uniform
Bernoulli = constriction.stream.model.Bernoulli(perfect=False)


@dataclass(frozen=True)
class Layout:
    """What one image's latents look like."""

    symbols: tuple[int, ...] | None  # (h, w) or (h, w, Q), None without codes
    continuous: tuple[int, ...] | None  # shape of its continuous numbers, None without


class Codec:
    """Encoder and decoder that share fixed tables.

    Args:
        counts: of training images; its quantizers are used.
        indices, continuous: any batch, for the layout.
    """

    def __init__(self, counts: Counts, indices: Tensor | None, continuous: Tensor | None):
        self.layout = Layout(*(None if part is None else tuple(part.shape[1:]) for part in (indices, continuous)))
        self.quantizers = counts.quantizers
        self.codes = [smoothed(count) for count in counts.codes]
        self.telling = counts.telling  # the symbol by which masks are coded
        self.mask = smoothed(counts.masks[self.telling]) if counts.masks else np.zeros((0, 2))  # (K, 2)
        self.units = smoothed(counts.units)  # (2,)
        self.levels = {bits: smoothed(count) for bits, count in counts.levels.items()}

    def encode(self, indices: Tensor | None, continuous: Tensor | None, bits: int | None) -> tuple[bytes, float]:
        """The stream, and how many of its bits (exactly: of cross-entropy) say what is stored.

        Args:
            indices, continuous: a batch as ``compress`` gives it, on the CPU.
            bits: precision of the continuous numbers, one of the quantizers' or 32; None stores the codes alone.
        """
        coder = constriction.stream.queue.RangeEncoder()
        symbols = [] if indices is None else symbols_of(indices)
        for one, table in zip(symbols, self.codes, strict=True):
            coder.encode(_flat(one), Categorical(table, perfect=False))
        if bits is None or continuous is None:
            return _to_bytes(coder), 0.0
        stored = ~np.isnan(continuous.numpy())
        mask_bits = self._encode_mask(coder, stored, symbols)
        if bits == FLOAT:
            return _to_bytes(coder) + continuous.numpy().astype("<f4")[stored].tobytes(), mask_bits
        levels = self.quantizers[bits].indices(continuous).numpy().astype(np.int32)
        for place, table in self._groups(bits):
            coder.encode(levels[place][stored[place]], Categorical(table, perfect=False))
        return _to_bytes(coder), mask_bits

    def decode(self, data: bytes, images: int, bits: int | None) -> tuple[Tensor | None, Tensor | None]:
        """``indices, continuous`` as they were encoded: the numbers after quantization, NaN where none is stored."""
        words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
        coder, indices = constriction.stream.queue.RangeDecoder(words), None
        if self.layout.symbols is not None:
            shape = (images, *self.layout.symbols[:2])
            symbols = [coder.decode(Categorical(table, perfect=False), int(np.prod(shape))).reshape(shape)
                       for table in self.codes]  # fmt: skip
            indices = torch.from_numpy(np.stack(symbols, axis=-1).astype(np.int64)).view(images, *self.layout.symbols)
        if bits is None or self.layout.continuous is None:
            return indices, None
        stored = self._decode_mask(coder, (images, *self.layout.continuous), symbols if indices is not None else [])
        values = np.full(stored.shape, np.nan, np.float32)
        if bits == FLOAT:
            numbers = int(stored.sum())
            values[stored] = np.frombuffer(data, "<f4", offset=len(data) - 4 * numbers)
            return indices, torch.from_numpy(values)
        levels = np.zeros(stored.shape, np.int64)
        for place, table in self._groups(bits):
            levels[place][stored[place]] = coder.decode(Categorical(table, perfect=False), int(stored[place].sum()))
        decoded = self.quantizers[bits].values(torch.from_numpy(levels)).numpy()
        return indices, torch.from_numpy(np.where(stored, decoded, values))

    def verify(self, data: bytes, indices: Tensor | None, continuous: Tensor | None, bits: int | None) -> None:
        """Raises RuntimeError unless a stream holds exactly these, the continuous numbers as quantised."""
        images = len(indices if indices is not None else continuous)
        found, numbers = self.decode(data, images, bits)
        if indices is not None and not torch.equal(found, indices):
            raise RuntimeError("a stream decodes to other codes than were encoded")
        if bits is None or continuous is None:
            return
        expected = continuous.float() if bits == FLOAT else self.quantizers[bits](continuous.float())
        if not torch.equal(numbers.isnan(), expected.isnan()) or not torch.equal(
            numbers.nan_to_num(0), expected.nan_to_num(0)
        ):
            raise RuntimeError(f"a stream of {bits} bits decodes to other continuous numbers than were encoded")

    def _groups(self, bits: int) -> list[tuple[tuple, np.ndarray]]:
        """Where the numbers of each range stand in a batch, and their table."""
        tables, axis = self.levels[bits], self.quantizers[bits].axis
        if axis is None:
            return [((slice(None),), tables[0])]
        return [((slice(None),) * axis + (group,), table) for group, table in enumerate(tables)]

    def _encode_mask(self, coder, stored: np.ndarray, symbols: list[np.ndarray]) -> float:
        """Write the mask; returns its cost."""
        positions = symbols[0].shape if symbols else None
        units, by_code = mask_units(stored, positions)
        if stored.all():
            mode, bits, chances = ALL, np.zeros(0, np.int64), np.zeros(0)
        elif by_code:
            mode, bits, chances = self._mask_by_code(units, symbols[self.telling])
        else:
            mode = BY_UNIT if units.ndim < stored.ndim else BY_ELEMENT
            bits, chances = units.ravel(), np.full(units.size, self.units[1])
        coder.encode(np.array([mode], np.int32), Uniform(4))
        coder.encode(_flat(bits), Bernoulli, chances)
        return 2 - float(np.log2(np.where(bits == 1, chances, 1 - chances)).sum())

    def _mask_by_code(self, units: np.ndarray, codes: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        chance = self.mask[:, 1]
        used, place = np.unique(codes, return_index=True)
        kind = np.zeros(len(chance), np.int64)
        kind[used] = units.ravel()[place]
        if (kind[codes] == units).all():
            return BY_CODE, kind[used], chance[used]
        return BY_UNIT, units.ravel(), chance[codes.ravel()]

    def _decode_mask(self, coder, shape: tuple[int, ...], symbols: list[np.ndarray]) -> np.ndarray:
        mode = int(coder.decode(Uniform(4)))
        if mode == ALL:
            return np.ones(shape, bool)
        if mode == BY_CODE:
            codes, chance = symbols[self.telling], self.mask[:, 1]
            used = np.unique(codes)
            kind = np.zeros(len(chance), bool)
            kind[used] = coder.decode(Bernoulli, chance[used])
            units = kind[codes]
        else:
            of_units = shape if mode == BY_ELEMENT or len(shape) < 4 else (shape[0], *shape[2:])
            if symbols and of_units == symbols[0].shape:
                chances = self.mask[symbols[self.telling].ravel(), 1]
            else:
                chances = np.full(int(np.prod(of_units)), self.units[1])
            units = coder.decode(Bernoulli, chances).reshape(of_units) == 1
        return np.broadcast_to(units[:, None] if units.ndim < len(shape) else units, shape).copy()


def _flat(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.ravel(), dtype=np.int32)


def _to_bytes(coder) -> bytes:
    return coder.get_compressed().astype("<u4").tobytes()
