"""Distortion, codebook use and nominal rate of a model over whole splits. Changes no state; float32, eval mode.

MSE is on [-1, 1], as in the paper. PSNR (dB, mean over images) and SSIM (Wang et al. 2004, 11x11 Gaussian window) are
taken after rounding both images to 8 bits. SSIM is the mean over every pixel, images mirrored at their borders, as
torchmetrics has it; Wang's own and scikit-image's leaves out the 5 pixels next to a border. Everything goes through
``compress`` and ``decompress``, what a file holds.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from vqlib.batches import Images
from vqlib.data.reader import Split
from vqlib.model import VQVAE
from vqlib.quantize import perplexity
from vqlib.rate import UniformQuantizer, nominal_rate

STRIP = 16  # images in a strip of reconstructions
RANGE_IMAGES = 1024  # training images from which the range of continuous latents is learnt


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Every part in eval mode inside the block, and as it was after it."""
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@torch.no_grad()
def evaluate(model: VQVAE, train: Split, test: Split, device: torch.device, batch_size: int = 250) -> dict[str, Any]:
    """Metrics over the whole test split, over as many training images (evenly spaced), and the nominal rate."""
    train_images, test_images = Images(train, device), Images(test, device)
    ranged = spread(len(train_images), RANGE_IMAGES)
    with eval_mode(model):
        latents = [model.bottleneck.compress(model.encode(train_images.batch(p)))[1] for p in ranged.split(batch_size)]
        quantizer = None if latents[0] is None else UniformQuantizer(torch.cat(latents))
        test_metrics = measure(model, test_images, torch.arange(len(test_images)), quantizer, batch_size)
        train_metrics = measure(model, train_images, spread(len(train_images), len(test_images)), quantizer, batch_size)
    positions, reals = test_metrics.pop("positions"), test_metrics.pop("reals")
    for key in ("positions", "reals"):
        train_metrics.pop(key, None)
    pixels = test.images.shape[1] * test.images.shape[2]
    rate = nominal_rate(model.bottleneck.alphabets, positions, reals, pixels)
    return {"test": test_metrics, "train": train_metrics, "rate": rate}


def measure(
    model: VQVAE, images: Images, chosen: Tensor, quantizer: UniformQuantizer | None, batch_size: int
) -> dict[str, Any]:
    """Means over the ``chosen`` images; ``positions`` and ``reals`` are what one image stores on average."""
    sums: dict[str, float] = {}
    counts: Tensor | int = 0
    for part in chosen.split(batch_size):
        x = images.batch(part)
        z_e = model.encode(x)
        _, losses, _ = model.bottleneck(z_e)
        indices, continuous = model.bottleneck.compress(z_e)
        found = distortion(x, model.decode(model.bottleneck.decompress(indices, continuous)))
        found |= {key: torch.full((len(x),), float(losses[f"{name}_loss"]))
                  for key, name in (("quantization", "commitment"), ("projection", "projection"))
                  if f"{name}_loss" in losses}  # fmt: skip
        if continuous is not None:
            coarse = model.decode(model.bottleneck.decompress(indices, quantizer(continuous)))
            found |= {f"{key}_8bit": value for key, value in distortion(x, coarse).items()}
            found["reals"] = (~torch.isnan(continuous)).flatten(1).sum(dim=1)
        if indices is not None:
            codes = indices if indices.dim() == 3 else indices[..., 0]
            counts = counts + torch.bincount(codes.flatten().cpu(), minlength=model.bottleneck.alphabets[0])
            found["positions"] = torch.full((len(x),), codes[0].numel())
        for key, value in found.items():
            sums[key] = sums.get(key, 0.0) + float(value.double().sum())
    means = {key: value / len(chosen) for key, value in sums.items()}
    none = isinstance(counts, int)
    return {
        "images": len(chosen),
        **{key: means.get(key) for key in ("mse", "psnr", "ssim", "quantization", "projection")},
        "perplexity": None if none else float(perplexity(counts)),
        "codebook_usage": None if none else float((counts > 0).double().mean()),
        **{key: means.get(key) for key in ("mse_8bit", "psnr_8bit", "ssim_8bit")},
        "positions": means.get("positions", 0),
        "reals": means.get("reals", 0),
    }


def distortion(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """``mse``, ``psnr`` and ``ssim`` of every image, (B,) each, between (B, 3, H, W) tensors in [-1, 1]."""
    a, b = to_8_bits(x), to_8_bits(y)
    values = a[0].numel()
    error = (a - b).square().flatten(1).mean(dim=1).clamp(min=1 / values)  # no error counts as one value off by one
    ssim = structural_similarity_index_measure(b, a, data_range=255.0, reduction="none")
    return {
        "mse": (x - y).square().flatten(1).mean(dim=1),
        "psnr": 10 * torch.log10(255**2 / error),
        "ssim": ssim.reshape(len(x)),
    }


def to_8_bits(x: Tensor) -> Tensor:
    """[-1, 1] to whole numbers 0..255, float32."""
    return ((x + 1) * 127.5).round().clamp(0, 255)


def spread(total: int, wanted: int) -> Tensor:
    """``wanted`` indices (at most ``total``) evenly over 0..total-1."""
    return torch.linspace(0, total - 1, min(total, wanted)).round().long()


@torch.no_grad()
def reconstruction_strip(model: VQVAE, test: Split, device: torch.device) -> bytes:
    """PNG of two rows without gaps: originals above, reconstructions below; the same test images for every run."""
    x = Images(test, device).batch(spread(len(test.images), STRIP))
    with eval_mode(model):
        y = model(x).reconstruction
    rows = [torch.cat(list(to_8_bits(images)), dim=2) for images in (x, y)]  # (3, H, 16 W) each
    pixels = torch.cat(rows, dim=1).byte().permute(1, 2, 0).cpu().contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
