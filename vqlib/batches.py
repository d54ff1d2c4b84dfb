"""Prepared images as batches on the device that computes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vqlib.data.reader import Split


class Images:
    """A split as batches of floats: resident on a GPU where it fits, else gathered from the prepared array."""

    def __init__(self, split: Split, device: torch.device):
        self.array, self.device = split.images, device
        room = torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else 0
        self.resident = torch.tensor(self.array, device=device) if self.array.nbytes <= room else None

    def __len__(self) -> int:
        return len(self.array)

    def batch(self, indices: Tensor) -> Tensor:
        """Images at int64 ``indices`` as (B, 3, H, W) float32 in [-1, 1], channels_last without a copy."""
        if self.resident is not None:
            pixels = self.resident[indices.to(self.device, non_blocking=True)]
        else:
            pixels = torch.from_numpy(self.array[indices.numpy()]).to(self.device, non_blocking=True)
        return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def in_order(self, batch_size: int, first: int = 0, every: int = 1) -> Iterator[Tensor]:
        """Every image once; or the batches ``first``, ``first + every`` and so on."""
        for part in torch.arange(len(self)).split(batch_size)[first::every]:
            yield self.batch(part)
