"""The arithmetic of vector quantization: pure functions, float32, no state.

Notation (van den Oord et al. 2017 and the paper): ``z_e`` is the encoder's output (B, D, h, w),
``codebook`` is (K, D), ``z_q`` the nearest code at each position (B, D, h, w).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

SEARCH_BUDGET = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}  # bytes that a block of scores may take, whatever K is


def positions(z: Tensor) -> Tensor:
    """(B, D, h, w) to one row per position, (B*h*w, D). Free where ``z`` is channels_last."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])


@torch.no_grad()
def nearest_code(z_e: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code with the least Euclidean distance at every position, int64 (B, h, w).

    The least ``|z - e|^2`` is the greatest ``z.e - |e|^2 / 2``. Scores are computed in float32 (float64 for float64
    input) whatever autocast says, in blocks of at most ``SEARCH_BUDGET`` bytes. Of equally near codes the first wins.
    """
    device = z_e.device.type
    with torch.autocast(device, enabled=False):
        dtype = torch.float64 if z_e.dtype == torch.float64 else torch.float32
        rows, codes = positions(z_e).to(dtype), codebook.to(dtype)
        half_norms = codes.square().sum(dim=1) / 2  # (K,)
        block = max(1, SEARCH_BUDGET[device] // (codes.shape[0] * rows.element_size()))
        found = [(part @ codes.T).sub_(half_norms).max(dim=1).indices for part in rows.split(block)]
    return torch.cat(found).view(z_e.shape[0], *z_e.shape[2:])  # (B, h, w)


def look_up(indices: Tensor, codebook: Tensor) -> Tensor:
    """Codes at (B, h, w) indices, as (B, D, h, w). Differentiable in the codebook."""
    return F.embedding(indices, codebook).permute(0, 3, 1, 2)


def straight_through(z_e: Tensor, z_q: Tensor) -> Tensor:
    """The value of ``z_q`` to the bit, the gradient of the identity to ``z_e`` (2017, section 3.2)."""
    return z_q.detach() + (z_e - z_e.detach())  # the bracket is exactly zero


def project(a: Tensor, b: Tensor, dim: int, guard: float = 0.0) -> tuple[Tensor, Tensor]:
    """P(a, b) of equation 2.1: ``gain * b`` with ``gain = a.b / (b.b + guard)``, sums taken over ``dim``.

    Returns the projection (the shape of ``b``) and the gain (that shape without ``dim``). The paper has no guard.
    """
    gain = (a * b).sum(dim=dim) / (b.square().sum(dim=dim) + guard)
    return gain.unsqueeze(dim) * b, gain


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy (nats) of a histogram of code counts (K,); K when all are equally used, 1 when one is."""
    share = counts.double() / counts.sum().clamp(min=1)
    return torch.exp(-torch.xlogy(share, share).sum())


def code_counts(indices: Tensor, num_embeddings: int) -> Tensor:
    """How often each code is chosen, int64 (K,), by (B, h, w) indices; by the first of Q symbols where there are Q."""
    codes = (indices if indices.dim() == 3 else indices[..., 0]).reshape(-1)
    counts = torch.zeros(num_embeddings, dtype=torch.int64, device=codes.device)
    return counts.scatter_add_(0, codes, torch.ones_like(codes))
