"""The pictures of notebooks/00_tour.ipynb: tensors in, a matplotlib Figure out."""

from collections.abc import Mapping
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from vqlib.batches import Images
from vqlib.data import Split, open_split, prepare
from vqlib.data.images import PROTOCOLS
from vqlib.evaluation import spread, to_8_bits
from vqlib.model import VQVAE
from vqlib.params import Data
from vqlib.quantize import nearest_code
from vqlib.reporting import figures
from vqlib.reporting.style import WIDTH, styled

COMMONEST = 6  # codes that get a colour of their own
LIMIT = 1.7  # of both axes of the plane
DPI = 130  # on the screen


def splits(data: Data) -> list[Split]:
    """train, validation and test, prepared in a temporary folder and read into memory."""
    with TemporaryDirectory() as folder:
        prepare(data, folder)
        opened = [open_split(folder, name) for name in ("train", "validation", "test")]
        return [replace(split, images=np.array(split.images)) for split in opened]


def photograph(size: int = 128) -> Tensor:
    """The photograph of which the test images of the source ``photos`` are crops, as (1, 3, size, size) in [-1, 1]."""
    reduced = np.asarray(PROTOCOLS["adm"](Image.fromarray(astronaut()), size))
    return torch.from_numpy(reduced.copy()).permute(2, 0, 1)[None] / 127.5 - 1


def pixels(x: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] to (B, H, W, 3) uint8."""
    return to_8_bits(x).byte().permute(0, 2, 3, 1).numpy()


@styled
def code_map(x: Tensor, indices: Tensor, reconstruction: Tensor) -> Figure:
    """An image, its codes (1, h, w) with the commonest ones in colour, and what is decoded from them."""
    codes, counts = indices.unique(return_counts=True)
    common = codes[counts.argsort(descending=True)][:COMMONEST]
    ranks = np.full(indices[0].shape, len(common))
    for rank, code in enumerate(common):
        ranks[indices[0] == code] = rank
    colours = ListedColormap([*sns.color_palette("colorblind", len(common)), "white"])

    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, 3)
    titles = (f"image, {x.shape[3]} x {x.shape[2]}", f"codes, {ranks.shape[1]} x {ranks.shape[0]}", "reconstruction")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
        ax.set_axis_off()
    axes[0].imshow(pixels(x)[0])
    shown = axes[1].imshow(ranks, cmap=colours, vmin=-0.5, vmax=len(common) + 0.5)
    axes[2].imshow(pixels(reconstruction)[0])
    bar = figure.colorbar(shown, ax=axes[1], ticks=range(len(common) + 1), shrink=0.9)
    bar.ax.set_yticklabels([f"code {code}" for code in common] + [f"{len(codes) - len(common)} others"])
    bar.ax.tick_params(length=0)
    return figure


@styled
def cells(z_e: Tensor, codebook: Tensor) -> Figure:
    """Vectors (B, 2, h, w), the codes (K, 2), and the part of the plane in which each code is the nearest."""
    figure = Figure(figsize=(WIDTH / 2, 3.3), layout="constrained", dpi=DPI)
    ax = figure.subplots()
    _plane(ax, z_e, codebook)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@styled
def moves(z_e: Tensor, codebook: Tensor, seen: Mapping[str, Tensor]) -> Figure:
    """A panel per bottleneck: each vector (B, 2, h, w) and, at the end of a line, what the decoder sees of it."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained", dpi=DPI)
    for ax, (name, z) in zip(figure.subplots(1, len(seen), sharey=True), seen.items(), strict=True):
        _plane(ax, z_e, codebook)
        for code in codebook.tolist():
            ax.axline((0, 0), code, color="dimgray", linewidth=0.5, linestyle=":", zorder=1)
        start, end = _points(z_e), _points(z)
        ax.plot(*np.stack([start, end], axis=1).T, color="black", linewidth=0.5, zorder=2)
        ax.scatter(*end.T, s=12, facecolor="white", edgecolor="black", linewidth=0.8, zorder=4, label="z")
        ax.set_title(name)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


@styled
def gains(row: Mapping[str, Tensor]) -> Figure:
    """The factor of every number in one row of a latent, (D, w) per bottleneck, on one scale of colours."""
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(row), sharey=True)
    low, high = np.percentile(torch.cat(list(row.values())).detach(), (2, 98))
    for ax, (name, part) in zip(axes, row.items(), strict=True):
        shown = ax.imshow(part.detach(), cmap="cividis", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
        ax.set(title=name, xlabel="column w")
    axes[0].set_ylabel("channel D")
    figure.colorbar(shown, ax=axes, label="gain", extend="both")
    return figure


def beside(test: Split, models: Mapping[str, VQVAE], results: Mapping[str, dict]) -> Figure:
    """Ten test images and what each model makes of them, with what ``vqlib.evaluation.evaluate`` says of it."""
    x = Images(test, torch.device("cpu")).batch(spread(len(test.images), 10))
    rows = {}
    for name, model in models.items():
        error, rate = results[name]["test"]["mse"], results[name]["rate"]["bpp_32bit"]
        rows[f"{name}\nMSE {error:.2g}, {rate:.3g} bpp"] = pixels(model(x).reconstruction)
    figure = figures.reconstructions(pixels(x), rows)
    figure.set_dpi(DPI)
    return figure


def _points(z: Tensor) -> np.ndarray:
    """(B, 2, h, w) to (B*h*w, 2)."""
    return z.detach().permute(0, 2, 3, 1).reshape(-1, 2).numpy()


def _plane(ax: Axes, z_e: Tensor, codebook: Tensor) -> None:
    """Cells in pale colours, vectors as dots, codes as crosses."""
    codebook = codebook.detach()
    side = torch.linspace(-LIMIT, LIMIT, 400)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"))[None]  # (1, 2, 400, 400)
    pale = ListedColormap([sns.blend_palette([c, "white"], 10)[7] for c in sns.color_palette("colorblind")])
    nearest = nearest_code(grid, codebook)[0]
    extent = (-LIMIT, LIMIT, -LIMIT, LIMIT)
    ax.imshow(nearest, cmap=pale, vmin=-0.5, vmax=9.5, origin="lower", extent=extent, interpolation="nearest")
    ax.scatter(*_points(z_e).T, s=7, color="black", zorder=3, label="$z_e$")
    ax.scatter(*codebook.T.numpy(), s=45, marker="X", color="white", edgecolor="black", zorder=5, label="code")
    ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xlabel="first number", ylabel="second number")
