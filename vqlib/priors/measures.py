"""How far samples are from images: two-sample measures without any network, and whether samples are memories.

sliced Wasserstein
    The mean, over random directions, of the Wasserstein-1 distance between projections of two sets of images averaged
    down to 8 x 8. In one dimension that distance is exact (sort both); it needs no features, no bandwidth and no
    weights to download, and is in units of pixel values on [-1, 1]. It sees colour, brightness and layout, no texture.
code pairs
    Total variation distance (0 to 1) between the histograms of neighbouring pairs of codes: whether codes follow one
    another as they do in images.

Both are above 0 for two sets of real images, the less so the more images: what these differ by, called ``floor``, has
to stand beside each value. Single sets may lie below it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 8  # pixels to which images are averaged down
DIRECTIONS = 256


def sliced_wasserstein(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Between two equally large sets of images, (N, 3, H, W) in [-1, 1] each."""
    rows = [F.adaptive_avg_pool2d(images, SIDE).flatten(1).double() for images in (a, b)]
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(rows[0].shape[1], DIRECTIONS, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    one, two = ((part @ directions).sort(dim=0).values for part in rows)
    return float((one - two).abs().mean())


def code_pairs(a: Tensor, b: Tensor) -> float:
    """Between two sets of grids of codes, (N, h, w) int64 each; several symbols of a position count as one code, see
    ``latents.joined``."""
    known, numbers = torch.cat([a.flatten(), b.flatten()]).unique(return_inverse=True)
    parts = numbers.split([a.numel(), b.numel()])
    one, two = (_pairs(part.view_as(grids), len(known)) for part, grids in zip(parts, (a, b), strict=True))
    keys = torch.cat([one, two]).unique()
    shares = [torch.bincount(torch.searchsorted(keys, part), minlength=len(keys)).double() / len(part)
              for part in (one, two)]  # fmt: skip
    return float((shares[0] - shares[1]).abs().sum() / 2)


def _pairs(grids: Tensor, codes: int) -> Tensor:
    """Every pair of horizontal or vertical neighbours as one number."""
    across = grids[:, :, :-1] * codes + grids[:, :, 1:]
    down = (grids[:, :-1] * codes + grids[:, 1:]) + codes * codes
    return torch.cat([across.flatten(), down.flatten()])


def nearest_images(images: Tensor, pool: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The nearest image of ``pool``, batches of it, to each of ``images`` (N, 3, H, W): index and MSE, (N,) each."""
    rows = images.flatten(1)
    least, index, passed = torch.full((len(rows),), torch.inf), torch.zeros(len(rows), dtype=torch.int64), 0
    for part in pool:
        error, place = (torch.cdist(rows, part.cpu().flatten(1)).square() / rows.shape[1]).min(dim=1)
        better = error < least
        least, index = torch.where(better, error, least), torch.where(better, place + passed, index)
        passed += len(part)
    return index, least


def most_shared_codes(grids: Tensor, pool: Tensor) -> Tensor:
    """The greatest share of positions at which a grid (N, h, w) has the codes of one of ``pool`` (M, h, w); (N,). As in
    ``code_pairs``, all symbols of a position have to agree."""
    flat, others = grids.flatten(1), pool.flatten(1)
    return torch.stack([(others == one).double().mean(dim=1).max() for one in flat])
