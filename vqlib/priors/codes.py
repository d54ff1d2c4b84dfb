"""p(symbols | class): a causal network over positions, and at each position one categorical head per symbol.

Where Q symbols describe a position, they are factorised: p(first | before) p(second | first, before) ...
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.priors.latents import Latents

Choose = Callable[[Tensor], Tensor]  # log-probabilities (B, K) in nats, float64 -> symbols (B,) int64


class Head(nn.Module):
    """Logits of one symbol from a position's feature and the symbols before it at that position."""

    def __init__(self, channels: int, before: tuple[int, ...], size: int):
        super().__init__()
        self.hidden, self.out = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, size)
        self.before = nn.ModuleList(nn.Embedding(one, 4 * channels) for one in before)

    def forward(self, feature: Tensor, symbols: Tensor) -> Tensor:
        """``feature`` (..., C), ``symbols`` (..., at least those before) -> (..., K)."""
        hidden = self.hidden(feature)
        for place, embedding in enumerate(self.before):
            hidden = hidden + embedding(symbols[..., place])
        return self.out(F.relu(hidden))


def embed(embeddings: nn.ModuleList, symbols: Tensor) -> Tensor:
    """The sum of each symbol's embedding, (..., Q) -> (..., C)."""
    return sum(embedding(symbols[..., q]) for q, embedding in enumerate(embeddings))


class CodePrior(nn.Module):
    """``network``: see ``vqlib.priors``. ``classes``: how many; with one, nothing is conditioned on."""

    def __init__(self, network: nn.Module, channels: int, alphabets: tuple[int, ...], classes: int):
        super().__init__()
        self.network, self.channels, self.alphabets = network, channels, alphabets
        self.embeddings = nn.ModuleList(nn.Embedding(size, channels) for size in alphabets)
        self.heads = nn.ModuleList(Head(channels, alphabets[:q], size) for q, size in enumerate(alphabets))
        self.label = nn.Embedding(classes, channels) if classes > 1 else None

    def embed(self, symbols: Tensor) -> Tensor:
        return embed(self.embeddings, symbols)

    def condition(self, labels: Tensor | None) -> Tensor:
        """(B, C, 1, 1), or (1, C, 1, 1) of zeros with one class."""
        if self.label is None:
            return self.embeddings[0].weight.new_zeros(1, self.channels, 1, 1)
        return self.label(labels)[:, :, None, None]

    def log_prob(self, symbols: Tensor, labels: Tensor | None) -> Tensor:
        """Natural logarithm of the probability of each symbol (B, h, w, Q) given those before it, the same shape."""
        x = self.embed(symbols).permute(0, 3, 1, 2)
        features = self.network(x, self.condition(labels)).permute(0, 2, 3, 1)
        logits = [head(features, symbols) for head in self.heads]
        each = [F.log_softmax(_at_least_float32(one), dim=-1).gather(-1, symbols[..., q, None])
                for q, one in enumerate(logits)]  # fmt: skip
        return torch.cat(each, dim=-1)

    def nats(self, latents: Latents) -> tuple[Tensor, int]:
        """Negative log-likelihood of a batch, summed, and the number of positions that it is spread over."""
        symbols = latents.symbols
        return -self.log_prob(symbols, latents.labels).sum(), symbols[..., 0].numel()

    @torch.no_grad()
    def walk(self, labels: Tensor | None, count: int, choose: Choose) -> Tensor:
        """Visit positions in raster order, each once, and ask ``choose`` for every symbol; symbols (B, h, w, Q).

        Sampling, encoding and decoding all go along here, so they see the same numbers.
        """
        height, width = self.network.shape
        blank = self.embeddings[0].weight.new_zeros(count, self.channels, 1, 1)
        state = self.network.start(blank, self.condition(labels).expand(count, -1, -1, -1))
        chosen = torch.zeros(count, height * width, len(self.heads), dtype=torch.int64, device=blank.device)
        before = None
        for place in range(height * width):
            feature = self.network.step(state, place, before)
            for q, head in enumerate(self.heads):
                logits = head(feature, chosen[:, place])
                chosen[:, place, q] = choose(F.log_softmax(logits.double(), dim=-1)).to(chosen.device)
            before = self.embed(chosen[:, place])
        return chosen.unflatten(1, (height, width))

    def sample(self, labels: Tensor | None, count: int, temperature: float, generator: torch.Generator) -> Tensor:
        """New symbols (B, h, w, Q). A temperature under 1 sharpens every conditional p^(1/T), one above it flattens."""
        return self.walk(labels, count, lambda logs: draw(logs / temperature, generator))


def draw(logs: Tensor, generator: torch.Generator) -> Tensor:
    """One symbol per row of unnormalised log-probabilities (B, K), by inverting the distribution function.

    Sums and ``generator`` are the CPU's: a GPU's cumulative sum is not the same every time.
    """
    cumulative = torch.softmax(logs, dim=-1).cpu().cumsum(dim=-1)
    level = torch.rand(len(logs), 1, generator=generator, dtype=torch.float64)
    found = torch.searchsorted(cumulative, level * cumulative[:, -1:], right=True)
    return found.squeeze(1).clamp(max=logs.shape[1] - 1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
