"""What a bottleneck stores of images, laid out for a prior; and which bottlenecks have no prior, with the reason."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vqlib.batches import Images
from vqlib.data.reader import Split
from vqlib.evaluation import probed
from vqlib.model import VQVAE


class Latents(NamedTuple):
    symbols: Tensor  # (N, h, w, Q) int64
    reals: Tensor | None  # (N, R, h, w), or (N, R, h, 1) per row; NaN where nothing is stored
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def has_reals(self) -> bool:
        """Whether any number is stored at all: where none is, ``reals`` may hold NaN alone."""
        return self.reals is not None and not bool(torch.isnan(self.reals).all())

    def at(self, chosen: Tensor | slice, device: torch.device | None = None) -> "Latents":
        return Latents(*(None if part is None else part[chosen].to(device) for part in self))

    def in_order(self, batch_size: int, device: torch.device) -> Iterator["Latents"]:
        for start in range(0, len(self), batch_size):
            yield self.at(slice(start, start + batch_size), device)


class Layout(NamedTuple):
    """Where the numbers of one image lie. Everything that decides the shape of a prior."""

    alphabets: tuple[int, ...]
    shape: tuple[int, int]  # h, w
    reals: int  # R, 0 without reals
    by_row: bool  # whether the reals belong to rows, not to positions

    @property
    def grid(self) -> tuple[int, int]:
        """Of the reals."""
        return (self.shape[0], 1) if self.by_row else self.shape


class NoPriorError(Exception):
    """A bottleneck that has no prior here; the message is the reason."""


def find_layout(indices: Tensor | None, continuous: Tensor | None, alphabets: tuple[int, ...]) -> Layout:
    """How what ``compress`` returns of a batch is laid out. One gain per position, reals per channel, or per row.

    Raises:
        NoPriorError: there are no codes, or the reals belong neither to positions nor to rows.
    """
    if indices is None:
        raise NoPriorError("it has no codes: a prior here is one of codes, and of real numbers given the codes")
    shape = tuple(indices.shape[1:3])
    if continuous is None:
        return Layout(tuple(alphabets), shape, 0, False)
    found = tuple(continuous.shape[1:])
    if found == shape:
        return Layout(tuple(alphabets), shape, 1, False)
    if len(found) == 3 and found[1:] == shape:
        return Layout(tuple(alphabets), shape, found[0], False)
    if len(found) == 2 and found[1] == shape[0]:
        return Layout(tuple(alphabets), shape, found[0], True)
    raise NoPriorError(f"its real numbers, {' x '.join(map(str, found))} of an image, belong neither to positions nor "
                       f"to rows of the grid of {shape[0]} x {shape[1]} codes")  # fmt: skip


def joined(symbols: Tensor, alphabets: tuple[int, ...]) -> Tensor:
    """The Q symbols of every position (..., Q) as one number (...), below the product of their alphabets."""
    one = symbols[..., 0]
    for q, size in enumerate(alphabets[1:], start=1):
        one = one * size + symbols[..., q]
    return one


def lay_out(indices: Tensor, continuous: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """What ``compress`` returned as symbols and reals of ``Latents``."""
    symbols = indices.reshape(len(indices), *layout.shape, len(layout.alphabets))
    if continuous is None:
        return symbols, None
    return symbols, continuous.reshape(len(indices), layout.reals, *layout.grid)


def take_back(symbols: Tensor, reals: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """What ``decompress`` takes: the inverse of ``lay_out``."""
    indices = symbols[..., 0] if len(layout.alphabets) == 1 else symbols
    if reals is None:
        return indices, None
    if layout.by_row:
        return indices, reals.squeeze(3)
    return indices, reals.squeeze(1) if layout.reals == 1 else reals


@torch.no_grad()
def layout_of(model: VQVAE, split: Split, device: torch.device) -> Layout:
    """Raises NoPriorError; see ``find_layout``. A probe of no two equal axes tells which of them numbers belong to."""
    z_e, stored = probed(model, Images(split, device))
    found = find_layout(*stored, model.bottleneck.alphabets)
    return found._replace(shape=tuple(z_e.shape[2:]))


@torch.no_grad()
def compress_split(model: VQVAE, split: Split, layout: Layout, device: torch.device, batch_size: int = 250) -> Latents:
    """Everything that the model stores of a split, on the CPU and in memory: 16 KB an image where 64 reals belong to
    each of 64 positions. ``model`` is in eval mode.
    """
    count = len(split.images)
    symbols = torch.empty(count, *layout.shape, len(layout.alphabets), dtype=torch.int64)
    reals = torch.empty(count, layout.reals, *layout.grid) if layout.reals else None
    for number, x in enumerate(Images(split, device).in_order(batch_size)):
        part = slice(number * batch_size, number * batch_size + len(x))
        some, numbers = lay_out(*model.bottleneck.compress(model.encode(x)), layout)
        symbols[part] = some
        if reals is not None:
            reals[part] = numbers
    return Latents(symbols, reals, torch.from_numpy(split.labels.copy()))


@torch.no_grad()
def decode(model: VQVAE, symbols: Tensor, reals: Tensor | None, layout: Layout, batch_size: int = 250) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1], on the CPU, of symbols and reals; a real that the model wants and that is NaN, as
    a code unseen in training may have it, counts as 0."""
    device = next(model.decoder.parameters()).device
    reals = None if reals is None else reals.nan_to_num(0)
    found = []
    for start in range(0, len(symbols), batch_size):
        part = slice(start, start + batch_size)
        stored = take_back(symbols[part].to(device), None if reals is None else reals[part].to(device), layout)
        found.append(model.decode(model.bottleneck.decompress(*stored)).cpu())
    return torch.cat(found)
