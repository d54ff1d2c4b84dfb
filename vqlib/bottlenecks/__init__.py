"""The contract of a bottleneck: how the encoder's output ``z_e`` becomes what the decoder sees.

A bottleneck is a class ``Bottleneck`` in a file of its own here, named in ``variants:`` of params.yaml. There is no
registry. It is an ``nn.Module`` with

``__init__(num_embeddings, embedding_dim, ...)``
    K codes of dimension D. An identity has no use for K and takes it all the same.
``forward(z_e) -> z, losses, indices``
    ``z_e`` (B, D, h, w) float32; ``z`` (B, D, h, w) what the decoder sees; ``losses`` a dict of named, unweighted
    scalars; ``indices`` int64 (B, h, w), or (B, h, w, Q) where Q symbols describe a position, or None without codes.
``compress(z_e) -> indices, continuous``
    what a file would have to hold. ``continuous`` is None or a float tensor whose first axis is B; NaN marks what
    need not be stored.
``decompress(indices, continuous) -> z``
    in eval mode equal to ``forward(z_e)[0]``.
``alphabets``
    the sizes of the Q alphabets of ``indices``; () without codes.
``begin(steps)``
    called once before a run of so many steps, for schedules; nothing by default.
``statistics(counts) -> dict``
    named scalars worth a column in the log; ``counts`` (K,) says how often each code was chosen since the last row.

The last three have defaults in ``BottleneckBase``. State that must survive is a buffer and changes only in training
mode. Neither sums nor draws may depend on the number of processes (``vqlib.distributed``), each of which sees a part of
the batch with generators that are seeded alike before every step. What a bottleneck sums over a batch goes through
``summed``. What it draws per code is the same everywhere by itself; what it draws per image or position, it draws for
the whole batch, and takes its part: ``part_of(torch.rand(len(z_e) * size(), h, w))``, on the CPU, whose draws are the
same on any device. Rate, bitstreams and priors go through ``compress`` and ``decompress`` alone; trainer and evaluation
never learn which bottleneck they work with.
"""

import importlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def make_bottleneck(name: str, **kwargs) -> nn.Module:
    """``Bottleneck(**kwargs)`` of the file ``vqlib/bottlenecks/<name>.py``."""
    return importlib.import_module(f"{__name__}.{name}").Bottleneck(**kwargs)


class BottleneckBase(nn.Module):
    """What a bottleneck without codes and without a schedule need not write."""

    alphabets: tuple[int, ...] = ()

    def begin(self, steps: int) -> None:
        """Before a run of ``steps`` steps."""

    def statistics(self, counts: Tensor | None) -> dict[str, Tensor]:
        return {}


class CodebookBottleneck(BottleneckBase):
    """What bottlenecks with one learnt codebook (K, D) share; initialised U(-1/K, 1/K) as released."""

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        bound = 1 / num_embeddings
        self.codebook = nn.Parameter(torch.empty(num_embeddings, embedding_dim).uniform_(-bound, bound))

    @property
    def alphabets(self) -> tuple[int, ...]:
        return (self.codebook.shape[0],)

    @torch.no_grad()
    def statistics(self, counts: Tensor | None) -> dict[str, Tensor]:
        """The least norm of a code; a code that is never chosen never moves, so also that of the codes in use."""
        norms = self.codebook.norm(dim=1)  # (K,)
        used = norms if counts is None else torch.where(counts > 0, norms, torch.inf)
        return {"smallest_code_norm": norms.min(), "smallest_used_code_norm": used.min()}


def vq_losses(z_e: Tensor, z_q: Tensor) -> dict[str, Tensor]:
    """``|sg[z_e] - z_q|^2`` and ``|z_e - sg[z_q]|^2``, means over every element (2017, equation 3).

    The first alone moves the codebook, the second alone holds the encoder to it. The weight beta belongs to the second;
    the paper's formula puts it before the first, its code does not.
    """
    return {
        "codebook_loss": F.mse_loss(z_q, z_e.detach()),
        "commitment_loss": F.mse_loss(z_e, z_q.detach()),
    }
