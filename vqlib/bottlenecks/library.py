"""Codebooks kept healthy, by the library vector-quantize-pytorch: controls that any gain of a new idea has to beat.

Its codes are moving averages of the vectors that chose them (van den Oord et al. 2017, appendix A.1), start from
k-means over the first batch, and take the place of a random vector when hardly ever chosen. On top of that cosine
codes (Yu et al. 2022), the rotation trick (Fifty et al. 2024) in place of the straight-through gradient, or several
codebooks, each for what the one before left (residual quantization, Zeghidour et al. 2021).

The library trains; choosing and looking up codes in evaluation is ours, since it would start its codebook there too.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from vector_quantize_pytorch import ResidualVQ

from vqlib.bottlenecks import BottleneckBase
from vqlib.distributed import rank, size, summed
from vqlib.quantize import look_up, nearest_code, positions


class Bottleneck(BottleneckBase):
    """quantizers: Q codebooks of K codes each. cosine: vectors and codes have length 1, as has what the decoder sees.
    rotation: the gradient turns with the code. decay: of the moving averages, per step. revive_below: share of the
    mean count of a code under which it is replaced.

    ``commitment_loss`` is the error that the last codebook leaves (with ``cosine``, between vectors of length 1), and
    ``coarse_commitment_loss`` the sum of what the others leave: with the library's own weights, 1, its loss.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        quantizers: int = 1,
        cosine: bool = False,
        rotation: bool = False,
        decay: float = 0.8,
        revive_below: float = 0.125,
    ):
        super().__init__()
        if cosine and quantizers > 1:
            raise ValueError(f"quantizers is {quantizers}; with cosine it must be 1")
        self.cosine, self.revive_below = cosine, revive_below
        self.alphabets = (num_embeddings,) * quantizers
        self.residual = ResidualVQ(
            dim=embedding_dim, num_quantizers=quantizers, codebook_size=num_embeddings, use_cosine_sim=cosine,
            rotation_trick=rotation, decay=decay, kmeans_init=True, threshold_ema_dead_code=1, sync_codebook=False,
        )  # fmt: skip
        for layer in self.residual.layers:  # sums over all processes, and draws that do not depend on their number
            codebook = layer._codebook
            codebook.all_reduce_fn = codebook.kmeans_all_reduce_fn = _sum_in_place
            codebook.sample_fn = codebook.replace_sample_fn = _draw

    def forward(self, z_e: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        z, symbols, errors = self._trained(z_e) if self.training else self._evaluated(z_e)
        losses = {"commitment_loss": errors[-1]}
        if len(errors) > 1:
            losses["coarse_commitment_loss"] = torch.stack(errors[:-1]).sum()
        return z, losses, symbols if len(self.alphabets) > 1 else symbols[..., 0]

    def _trained(self, z_e: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        b, _, h, w = z_e.shape
        for layer in self.residual.layers:
            codebook = layer._codebook
            fair = b * h * w * size() / codebook.codebook_size
            codebook.threshold_ema_dead_code = codebook.reset_cluster_size = self.revive_below * fair
        rows, symbols, errors = self.residual(positions(z_e).unsqueeze(0))  # (1, B*h*w, D), (1, B*h*w, Q), (Q,)
        return rows.view(b, h, w, -1).permute(0, 3, 1, 2), symbols.view(b, h, w, -1), list(errors.flatten())

    def _evaluated(self, z_e: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        rest, symbols, errors = F.normalize(z_e, dim=1) if self.cosine else z_e, [], []
        for layer in self.residual.layers:
            symbols.append(nearest_code(rest, layer.codebook))
            rest = rest - look_up(symbols[-1], layer.codebook)
            errors.append(rest.square().mean())
        stacked = torch.stack(symbols, dim=-1)  # (B, h, w, Q)
        return self._looked_up(stacked), stacked, errors

    def _looked_up(self, symbols: Tensor) -> Tensor:
        found = zip(symbols.unbind(-1), self.residual.layers, strict=True)
        return torch.stack([look_up(symbol, layer.codebook) for symbol, layer in found]).sum(dim=0)

    def compress(self, z_e: Tensor) -> tuple[Tensor, None]:
        _, symbols, _ = self._evaluated(z_e)
        return symbols if len(self.alphabets) > 1 else symbols[..., 0], None

    def decompress(self, indices: Tensor, continuous: None) -> Tensor:
        return self._looked_up(indices if len(self.alphabets) > 1 else indices.unsqueeze(-1))


def _sum_in_place(values: Tensor) -> None:
    values.copy_(summed(values))


def _draw(samples: Tensor, number: int) -> Tensor:
    """``number`` of the (1, N, D) samples of all processes, (1, number, D), drawn by torch's global generator."""
    everywhere = samples.new_zeros(size(), *samples.shape[1:])
    everywhere[rank()] = samples[0]
    rows = summed(everywhere).flatten(0, 1)  # in the order of the batch
    enough = len(rows) >= number
    chosen = torch.randperm(len(rows))[:number] if enough else torch.randint(len(rows), (number,))
    drawn = rows[chosen.to(rows.device)]
    if not enough:  # some are drawn twice: a little apart, so that no two codes are equally near
        drawn = drawn * (1 + 0.01 * torch.randn(drawn.shape).to(drawn))
    return drawn.unsqueeze(0)
