"""The straightforward ways, for comparison: what a program does that follows the usual tutorials.

``files_and_loader`` trains the same network as the reference code trains (R. Kumar et al., which the paper builds on):
float32, contiguous tensors, images decoded from files by a DataLoader, Adam as it comes, ``.item()`` at every step.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measure import as_torch_comes
from vqlib.data.reader import Split
from vqlib.networks import Decoder, Encoder

QUALITY = 95  # of the JPEGs


def write_files(split: Split, folder: Path, kind: str = "jpg") -> Path:
    """The images of a split as files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(split.images):
        Image.fromarray(pixels).save(folder / f"{number:06d}.{kind}", quality=QUALITY)
    return folder


class ImageFiles(Dataset):
    """Files of a folder as normalised tensors (3, H, W)."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.iterdir())
        half = (0.5, 0.5, 0.5)
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Tensor:
        with Image.open(self.files[place]) as picture:
            return self.transform(picture.convert("RGB"))


class PlainVQVAE(nn.Module):
    """The VQ-VAE of the same encoder and decoder, with the search written as a matrix of all distances."""

    def __init__(self, width: int, codes: int):
        super().__init__()
        self.encoder, self.decoder = Encoder(width), Decoder(width)
        self.codebook = nn.Embedding(codes, width)
        self.codebook.weight.data.uniform_(-1 / codes, 1 / codes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z_e = self.encoder(x)
        rows = z_e.permute(0, 2, 3, 1).contiguous()  # (B, h, w, D)
        nearest = distances(rows.detach().view(-1, rows.shape[-1]), self.codebook.weight.detach()).argmin(dim=1)
        z_q = self.codebook(nearest).view_as(rows).permute(0, 3, 1, 2).contiguous()
        return self.decoder(z_e + (z_q - z_e).detach()), z_e, z_q


def distances(rows: Tensor, codebook: Tensor) -> Tensor:
    """Squared distances (N, K) of rows (N, D) to every code (K, D), by one product."""
    squares = codebook.square().sum(dim=1) + rows.square().sum(dim=1, keepdim=True)
    return torch.addmm(squares, rows, codebook.t(), alpha=-2.0)


def cdist_argmin(rows: Tensor, codebook: Tensor) -> Tensor:
    """The search of one line."""
    return torch.cdist(rows, codebook).argmin(dim=1)


def files_and_loader(given: dict, folder: Path, device: torch.device, steps: int = 1) -> Iterator[float]:
    """Train for ever; seconds per step over each ``steps`` steps. Workers live as long as the training."""
    with as_torch_comes():
        model = PlainVQVAE(given["width"], given["codes"]).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=given["learning_rate"])
    workers = max(1, (os.cpu_count() or 1) - 1)
    loader = DataLoader(ImageFiles(folder), given["batch"], shuffle=True, drop_last=True, num_workers=workers,
                        pin_memory=device.type == "cuda", persistent_workers=True)  # fmt: skip
    done, start = 0, time.perf_counter()
    while True:
        for x in loader:
            with as_torch_comes():
                x = x.to(device)
                optimizer.zero_grad()
                reconstruction, z_e, z_q = model(x)
                recon_loss = F.mse_loss(reconstruction, x)
                loss = recon_loss + F.mse_loss(z_q, z_e.detach()) + F.mse_loss(z_e, z_q.detach())
                loss.backward()
                optimizer.step()
                recon_loss.item(), loss.item()  # as a log of every step asks for; waits for the device
            done += 1
            if done % steps == 0:
                yield (time.perf_counter() - start) / steps
                start = time.perf_counter()


def mask_by_positions(indices: Tensor, z_q: Tensor, z_e: Tensor, kept: set[int]) -> Tensor:
    """The mask of the frequency variant as the paper's code has it: a loop over every position in Python."""
    z = z_q.clone()
    batch, height, width = indices.shape
    for image in range(batch):
        for row in range(height):
            for column in range(width):
                if indices[image, row, column].item() not in kept:
                    z[image, :, row, column] = z_e[image, :, row, column]
    return z


def mask_at_once(indices: Tensor, z_q: Tensor, z_e: Tensor, kept: Tensor) -> Tensor:
    """The same by one comparison of all positions; ``kept`` (K,) is true for the codes that stay."""
    return torch.where(kept[indices].unsqueeze(1), z_q, z_e)


def kept_codes(indices: Tensor, codes: int, number: int) -> Tensor:
    """Which (K,) are the ``number`` most frequent codes among indices."""
    counts = torch.bincount(indices.flatten(), minlength=codes)
    kept = torch.zeros(codes, dtype=torch.bool, device=indices.device)
    kept[counts.topk(number).indices] = True
    return kept


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Numbers drawn from the standard normal distribution, float32: in place of latents, of a codebook."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
