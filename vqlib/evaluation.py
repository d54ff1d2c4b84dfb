"""Distortion, codebook use and rate of a model over whole splits. Changes no state; float32, eval mode.

Everything goes through ``compress`` and ``decompress``, what a file holds. What distortion is stands in
vqlib.distortion, what bits are in vqlib.rate.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vqlib.batches import Images
from vqlib.bitstream import FLOAT, Codec
from vqlib.data.reader import Split
from vqlib.distortion import MEASURES, Means, Reference, to_8_bits
from vqlib.model import VQVAE
from vqlib.perceptual import Perceptual
from vqlib.rate import GAIN_BITS, LISTED, PRECISIONS, Bill, describe_symbols
from vqlib.released_protocol import BATCH, mixed, released_protocol
from vqlib.tables import Counts
from vqlib.uniform import UniformQuantizer

STRIP = 16  # images in a strip of reconstructions
RANGE_IMAGES = 1024  # training images from which the ranges of continuous latents are learnt
CHECKED_NUMBERS = 2**21  # of a split, at least, whose streams are decoded again whenever a model is evaluated
GAIN_BINS = 64
LOSSES = {"quantization": "commitment_loss", "projection": "projection_loss"}
REASONS = {
    "codes": "this bottleneck has no codes",
    "rate.precisions": "nothing is continuous here, so the run is one point",
    "gains": "its continuous numbers are vectors, no gains",
}


class Batch(NamedTuple):
    """What became of a batch of images."""

    reference: Reference
    reconstruction: Tensor  # (B, 3, H, W)
    indices: Tensor | None  # on the model's device
    stored: tuple[Tensor | None, Tensor | None]  # indices and continuous numbers on the CPU
    found: dict[str, Tensor]  # name -> (B,), to be averaged


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
    """Metrics over the whole test split and over as many training images (evenly spaced); bits of every kind.

    The tables of the entropy coder are learnt on those training images. A stream holds one batch of test images.
    A bottleneck that mixes the images of a batch gets them in mixed order, in batches of the released code's size.
    """
    train_images, test_images = Images(train, device), Images(test, device)
    chosen, alphabets = spread(len(train_images), len(test_images)), model.bottleneck.alphabets
    tested = torch.arange(len(test_images))
    if getattr(model.bottleneck, "mixes_images", False):
        chosen, tested, batch_size = chosen[mixed(len(chosen))], mixed(len(tested)), BATCH
    train_means, means, perceptual = Means(), Means(), Perceptual(test.images.shape[1], device)
    with eval_mode(model):
        quantizers, edges = learn_ranges(model, train_images, batch_size)
        gains_of = [None if quantizers else scales(model, place, test_images) for place in range(len(alphabets))]
        train_counts = Counts(alphabets, quantizers)
        for batch in walk(model, train_images, chosen, batch_size):
            train_means.add(batch.found)
            train_counts.add(*batch.stored)
        bill, gains = Bill(alphabets, Codec(train_counts, *batch.stored)), np.zeros(GAIN_BINS, np.int64)
        for batch in walk(model, test_images, tested, batch_size):
            means.add(batch.found)
            perceptual.add(batch.reference.x, batch.reconstruction)
            bill.add(*batch.stored, verify=bill.stored < CHECKED_NUMBERS)
            for bits, quantizer in quantizers.items():
                coarse = quantizer(batch.stored[1]).to(device)
                found = batch.reference.distortion(model.decode(model.bottleneck.decompress(batch.indices, coarse)))
                means.add({f"{key}_{bits}bit": value for key, value in found.items()})
            if edges is not None:
                numbers = batch.stored[1][~batch.stored[1].isnan()].double().numpy()
                gains += np.histogram(numbers.clip(edges[0], edges[-1]), edges)[0]
    values, reasons = perceptual.compute()
    rate = bill.rates(pixels=test.images.shape[1] * test.images.shape[2])
    for row in rate["precisions"]:
        suffix = "" if row["bits"] == FLOAT else f"_{row['bits']}bit"
        row |= {key: means.get(key + suffix) for key in MEASURES}
    lacking = {"codes": not alphabets, "rate.precisions": not quantizers, "gains": edges is None and bool(quantizers)}
    codes = describe_symbols(bill.counts.codes)
    for symbol, found in zip(codes, gains_of, strict=True):
        symbol |= {"values": found} if found else {}
    coarse = {key: means.get(key) for key in (f"{name}_{GAIN_BITS}bit" for name in MEASURES)}
    return {
        "test": {"images": len(test_images), **described(means, codes), **coarse, **values},
        "train": {"images": len(chosen), **described(train_means, describe_symbols(train_counts.codes))},
        "released_protocol": released_protocol(model, test_images),
        "rate": {**rate, "table_images": len(chosen)},
        "codes": codes,
        "gains": None if edges is None else {"edges": edges.tolist(), "shares": (gains / max(gains.sum(), 1)).tolist()},
        "reasons": reasons | {key: REASONS[key] for key, lacks in lacking.items() if lacks},
    }


def described(means: Means, codes: list[dict[str, Any]]) -> dict[str, float | None]:
    """What a result says of either split. Perplexity and use are those of the first symbol."""
    use = {key: codes[0][key] if codes else None for key in ("perplexity", "codebook_usage")}
    return {key: means.get(key) for key in (*MEASURES, *LOSSES)} | use


def walk(model: VQVAE, images: Images, chosen: Tensor, batch_size: int) -> Iterator[Batch]:
    """The ``chosen`` images through the model, batch by batch."""
    for part in chosen.split(batch_size):
        x = images.batch(part)
        z_e = model.encode(x)
        _, losses, _ = model.bottleneck(z_e)
        indices, continuous = model.bottleneck.compress(z_e)
        y = model.decode(model.bottleneck.decompress(indices, continuous))
        reference = Reference(x)
        found = reference.distortion(y)
        found |= {key: losses[loss].expand(len(x)) for key, loss in LOSSES.items() if loss in losses}
        stored = None if indices is None else indices.cpu(), None if continuous is None else continuous.float().cpu()
        yield Batch(reference, y, indices, stored, found)


def learn_ranges(
    model: VQVAE, images: Images, batch_size: int
) -> tuple[dict[int, UniformQuantizer], np.ndarray | None]:
    """Quantizers of the continuous numbers by bits ({} without any), and edges for a histogram where they are gains.

    A range belongs to each channel where continuous numbers have channels, which a probe of no two equal axes shows.
    """
    chosen = spread(len(images), RANGE_IMAGES)
    latents = [model.bottleneck.compress(model.encode(images.batch(part)))[1] for part in chosen.split(batch_size)]
    if latents[0] is None:
        return {}, None
    z_e, (_, numbers) = probed(model, images)
    axis = 1 if numbers.dim() > 1 and numbers.shape[1] == z_e.shape[1] else None
    values = torch.cat(latents).float().cpu()
    quantizers = {bits: UniformQuantizer(values, bits, axis) for bits in PRECISIONS}
    if values.dim() != 3:
        return quantizers, None
    kept = values[values.isfinite()].double().numpy()
    low, high = np.quantile(kept, (1e-4, 1 - 1e-4)) if len(kept) else (0.0, 1.0)
    return quantizers, np.linspace(low, high if high > low else low + 1, GAIN_BINS + 1)


def probed(model: VQVAE, images: Images) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """``z_e`` of the first image, and what ``compress`` makes of one like it but with no two equal axes: that shows
    which axes its numbers have."""
    z_e = model.encode(images.batch(torch.arange(1)))
    height, width = [size for size in (2, 3, 5) if size != z_e.shape[1]][:2]
    return z_e, model.bottleneck.compress(z_e.new_zeros(1, z_e.shape[1], height, width))


def scales(model: VQVAE, place: int, images: Images) -> list[float] | None:
    """What each level of a symbol multiplies a position with, where it does nothing else (a gain); else None.

    Shown by ``decompress`` alone, so the sign that all levels share is free: that of the largest is positive.
    """
    levels = model.bottleneck.alphabets[place]
    if levels > LISTED or len(model.bottleneck.alphabets) < 2:
        return None
    indices, _ = model.bottleneck.compress(model.encode(images.batch(torch.arange(1))))
    first = indices[:, :1, :1].expand(levels, -1, -1, -1).clone()  # (levels, 1, 1, Q)
    first[..., place] = torch.arange(levels, device=first.device).view(-1, 1, 1)
    vectors = model.bottleneck.decompress(first, None).flatten(1).double()  # (levels, D)
    largest = vectors[vectors.norm(dim=1).argmax()]
    direction = largest / largest.norm().clamp(min=torch.finfo(torch.float64).tiny)
    values = vectors @ direction
    if not torch.allclose(values.unsqueeze(1) * direction, vectors, rtol=0, atol=1e-5 * float(largest.norm())):
        return None
    return values.tolist()


def spread(total: int, wanted: int) -> Tensor:
    """``wanted`` indices (at most ``total``) evenly over 0..total-1."""
    return torch.linspace(0, total - 1, min(total, wanted)).round().long()


@torch.no_grad()
def reconstruction_strip(model: VQVAE, test: Split, device: torch.device) -> bytes:
    """PNG of two rows without gaps: originals above, reconstructions below; the same test images for every run."""
    x = Images(test, device).batch(spread(len(test.images), STRIP))
    with eval_mode(model):
        y = model(x).reconstruction
    return png(torch.cat([x, y]), len(x))


def png(images: Tensor, columns: int) -> bytes:
    """Images (N, 3, H, W) in [-1, 1] as rows of ``columns``, without gaps; white where none is left."""
    missing = -len(images) % columns
    tiles = torch.cat([to_8_bits(images), images.new_full((missing, *images.shape[1:]), 255)])
    rows = tiles.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)  # (rows, H, columns, W, 3)
    pixels = rows.flatten(0, 1).flatten(1, 2).byte().cpu().contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
