"""Nearest-code search: ours against cdist + argmin and against vector-quantize-pytorch; time and peak memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure, naive
from vqlib.quantize import look_up, nearest_code, positions

OURS, CDIST, LIBRARY = "ours", "cdist + argmin", "vector-quantize-pytorch"


def ways(latents: Tensor, codebook: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Codes (B, h, w) of latents (B, D, h, w), and their vectors, since the library always gives both."""
    found: dict[str, Callable[[], Tensor]] = {
        OURS: lambda: _with_vectors(nearest_code(latents, codebook), codebook),
        CDIST: lambda: _with_vectors(
            naive.cdist_argmin(positions(latents), codebook).view(latents.shape[0], *latents.shape[2:]), codebook
        ),
    }
    try:
        from vector_quantize_pytorch import VectorQuantize
    except ImportError:
        return found
    codes, width = codebook.shape
    layer = VectorQuantize(dim=width, codebook_size=codes, accept_image_fmap=True).to(latents.device).eval()
    layer.codebook = codebook
    found[LIBRARY] = lambda: layer(latents)[1]
    return found


def _with_vectors(indices: Tensor, codebook: Tensor) -> Tensor:
    look_up(indices, codebook)
    return indices


def made(grid: int, codes: int, batch: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random latents (batch, width, grid, grid), channels last as the encoder's are, and a codebook (codes, width)."""
    latents = naive.normal(batch, width, grid, grid).to(device)
    return latents.contiguous(memory_format=torch.channels_last), naive.normal(codes, width, seed=1).to(device)


@torch.no_grad()
def memory_of(way: str, shape: tuple[int, int, int, int], device: torch.device) -> int | None:
    """Bytes that a way takes beyond latents and codebook of ``made``; for a ``measure.fresh`` process.

    A small search comes first, so that what libraries load once is not counted.
    """
    for size in ((4, 16, 2, shape[-1]), shape):
        _, memory = measure.memory_of(ways(*made(*size, device))[way], device)
    return memory


@torch.no_grad()
def compared(grid: int, codes: int, batch: int, width: int, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """One row per way: seconds, peak memory in bytes, share of positions with the code of a float64 search."""
    latents, codebook = made(grid, codes, batch, width, device)
    exact = nearest_code(latents.double(), codebook.double())
    works = ways(latents, codebook)
    rows = {
        name: {
            "way": name,
            "memory": measure.fresh(memory_of, name, (grid, codes, batch, width), device),
            "agreement": float((work() == exact).double().mean()),
        }
        for name, work in works.items()
    }
    seconds = measure.in_turn({n: (lambda w=w: measure.timed(w, device)) for n, w in works.items()}, rounds)
    shape = {"grid": grid, "codes": codes, "batch": batch, "width": width, "rounds": rounds}
    return [{**shape, **row, "seconds": seconds[name]} for name, row in rows.items()]


def measured(device: torch.device, small: bool) -> dict[str, Any]:
    batch, rounds = (32, 20) if device.type == "cuda" else (4, 3)
    plan = [(grid, codes) for grid in (32, 64) for codes in (512, 2048, 8192, 16_384)]
    if small:
        plan, batch = [(4, 16), (8, 32)], 2
    width = 8 if small else 256
    return {"rows": [row for grid, codes in plan for row in compared(grid, codes, batch, width, device, rounds)]}
