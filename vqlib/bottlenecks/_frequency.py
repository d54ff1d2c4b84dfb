"""What ``frequency``, ``frequency_released`` and ``combined`` share: which codes are frequent, and since when.

M (the paper's section 2.2) is true at the positions whose code is among the S most frequent ones: they stay discrete.
"""

import torch
from torch import Tensor

from vqlib.bottlenecks import CodebookBottleneck
from vqlib.distributed import summed
from vqlib.quantize import code_counts


def most_frequent(frequencies: Tensor, number: int) -> Tensor:
    """True for the ``number`` greatest of ``frequencies`` (K,), bool (K,). Of equal ones the first win."""
    order = frequencies.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(frequencies, dtype=torch.bool)
    chosen[order[:number]] = True
    return chosen


class FrequencyBottleneck(CodebookBottleneck):
    """A codebook, a table of how often each code is chosen in training, and a warm-up in which M is true everywhere.

    num_frequent: S, from 0 to K.
    warmup_fraction: of the run's steps, until which nothing is continuous (six epochs of the paper's hundred).
    decay: of the moving average of a batch's shares, per step; 0.99 remembers about 100 batches.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, num_frequent: int, warmup_fraction: float, decay: float
    ):
        super().__init__(num_embeddings, embedding_dim)
        for name, value, most in (("num_frequent", num_frequent, num_embeddings), ("decay", decay, 1),
                                  ("warmup_fraction", warmup_fraction, 1)):  # fmt: skip
            if not 0 <= value <= most:
                raise ValueError(f"{name} is {value}; it must be from 0 to {most}")
        self.num_frequent, self.warmup_fraction, self.decay = num_frequent, warmup_fraction, decay
        # float64: the order of the codes survives a file that rounds float32 to float16
        self.register_buffer("table", torch.zeros(num_embeddings, dtype=torch.float64))
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("warmup_steps", torch.zeros((), dtype=torch.int64))

    def begin(self, steps: int) -> None:
        self.warmup_steps.fill_(round(self.warmup_fraction * steps))

    def discrete(self, indices: Tensor) -> Tensor:
        """M at (B, h, w) indices, bool: a function of code and table alone."""
        return self.discrete_codes(self.table)[indices]

    def discrete_codes(self, frequencies: Tensor) -> Tensor:
        """Which codes stay discrete, bool (K,): the frequent ones, and all before the warm-up is over."""
        return most_frequent(frequencies, self.num_frequent) | (self.steps_seen < self.warmup_steps)

    @torch.no_grad()
    def see(self, indices: Tensor) -> Tensor:
        """``discrete``; in training the table has these (B, h, w) indices in it, and one step more is over after it."""
        if not self.training:
            return self.discrete(indices)
        counts = summed(code_counts(indices, len(self.table))).double()
        self.table.lerp_(counts / counts.sum(), 1 - self.decay)
        discrete = self.discrete(indices)
        self.steps_seen += 1
        return discrete

    @torch.no_grad()
    def statistics(self, counts: Tensor | None) -> dict[str, Tensor]:
        """Beside the codebook's, the share of positions since the last row that the codes now rare would make."""
        found = super().statistics(counts)
        if counts is not None:
            rare = counts.masked_fill(self.discrete_codes(self.table), 0)
            found["continuous_fraction"] = rare.sum() / counts.sum().clamp(min=1)
        return found
