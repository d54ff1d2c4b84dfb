"""The headline figure: distortion against rate, for every model and for codecs that readers know."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vqlib.reporting.figures import FEW, log_axis
from vqlib.reporting.labels import label_points
from vqlib.reporting.style import WIDTH, marker, styled
from vqlib.reporting.tables import half_interval

RAW_BPP = 24  # of an 8-bit RGB image
CODECS = {"jpeg": ("JPEG", "#4D4D4D"), "webp": ("WebP", "#9A9A9A")}
FULL = 32  # bits of an unquantised number
CLOSE = 4  # bits per pixel: what the lower of two views ends at, where some models need more


@styled
def rate_distortion(points: pd.DataFrame, codecs: dict[str, dict], colours: dict[str, str]) -> Figure:
    """PSNR against bits per pixel. A model is a point, or a curve over the precisions of its continuous latents.

    Where some models need more than CLOSE bits per pixel at every precision, or ``identity`` is there, there are two
    views: all models, and the others up to that rate.

    Args:
        points: columns model, bits (of a number; 0 where nothing is continuous), bpp, nominal, prior (bits per pixel,
            NaN where there is none), psnr; several rows of one model and bits are its seeds.
        codecs: ``codecs`` of codecs.json: name -> mosaic and files, each a list of {bpp, psnr}; {} for none.
    """
    points = points.dropna(subset=["bpp", "psnr"])
    cheapest = points.groupby(["model", "bits"])["bpp"].mean().groupby("model").min()
    near = points[points["model"].isin(cheapest.index[cheapest < CLOSE]) & (points["model"] != "identity")]
    two = 0 < near["model"].nunique() < points["model"].nunique()
    parts = [points, near] if two else [points]
    few = parts[-1]["model"].nunique() < FEW  # enough room in the wide view for their names
    figure = Figure(figsize=(WIDTH, (6.4 if few else 6.9) if two else 4.2), layout="constrained")
    axes = figure.subplots(len(parts), 1, squeeze=False, height_ratios=[1, 1.4 if few else 2.4][: len(parts)])[:, 0]
    views = []
    for ax, part in zip(axes, parts, strict=True):
        lower = ax is axes[-1]
        limits = _limits(part, codecs, wide=not lower, most=CLOSE if two and lower else np.inf)
        names, drawn = _draw_view(ax, part, codecs, colours, limits)
        if not lower and not few:
            names = [name for name in names if name[0] not in set(near["model"])]  # the lower view has theirs
        views.append((ax, names, drawn))
        if two:
            ax.set_title(f"closer, up to {CLOSE} bits per pixel" if lower else "all models", loc="left")
    axes[-1].set_xlabel("bits per pixel")
    codecs_seen = any(name not in colours for _, names, _ in views for name, *_ in names)
    figure.legend(handles=_keys(points, codecs_seen), loc="outside upper center", ncols=3)
    for view in views:  # when the layout is settled
        label_points(*view)
    return figure


def _draw_view(
    ax: Axes, part: pd.DataFrame, codecs: dict[str, dict], colours: dict[str, str], limits: tuple
) -> tuple[list[tuple], np.ndarray]:
    """One panel. Returns (name, bpp, psnr, colour) of what is in view, and samples of what names are not to cover."""
    (left, right), (low, high) = limits
    names, drawn = [], []
    for model in dict.fromkeys(part["model"]):
        own = part[part["model"] == model]
        mean = own.groupby("bits")[["bpp", "nominal", "prior", "psnr"]].mean()
        drawn += _draw_model(ax, own, mean, colours[model], marker(model, colours))
        visible = mean[mean["bpp"] < right]
        middle = visible.iloc[len(visible) // 2]
        names.append((model, middle["bpp"], middle["psnr"], colours[model]))
    for name, curves in codecs.items():
        title, colour = CODECS.get(name, (name, "#4D4D4D"))
        drawn += _draw_codec(ax, curves, title, colour, limits, names)
    log_axis(ax, "x")
    ax.set(xlim=limits[0], ylim=limits[1], ylabel="PSNR (dB) on the test split")
    ax.grid(which="major", alpha=0.4)
    if left < RAW_BPP < right:
        ax.axvline(RAW_BPP, color="dimgray", linewidth=0.8, linestyle=":")
        ax.annotate("raw image, 24 bpp", (RAW_BPP, 0.03), (-3, 0), xycoords=("data", "axes fraction"), rotation=90,
                    textcoords="offset points", ha="right", va="bottom", color="dimgray", fontsize=6.5)  # fmt: skip
    inside = [name for name in names if left < name[1] < right and low < name[2] < high]
    return inside, np.array([point for point in drawn if left < point[0] < right])


def _limits(
    part: pd.DataFrame, codecs: dict, wide: bool, most: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of bits per pixel, to ``most`` at most, and of PSNR: room for names and for where a codec begins, unless far
    above every model; in the wide view also for the raw image's rate."""
    least = min(part["bpp"].min(), part["prior"].min() if part["prior"].notna().any() else np.inf)
    greatest = max(part["bpp"].max(), part["nominal"][part["bits"] == 0].max(), RAW_BPP if wide else 0)
    right = min(1.7 * greatest, most)
    mean = part.groupby(["model", "bits"])[["bpp", "psnr"]].mean()
    psnr = mean["psnr"][mean["bpp"] <= right]
    height = max(psnr.max() - psnr.min(), 0.5)
    starts = [curves["mosaic"][0]["psnr"] for curves in codecs.values() if curves.get("mosaic")]
    top = max([psnr.max(), *(start for start in starts if start < psnr.max() + height)])
    return (least / 1.7, right), (psnr.min() - 0.2 * height, top + 0.2 * height)


def _draw_model(ax: Axes, own: pd.DataFrame, mean: pd.DataFrame, colour: str, shape: str) -> list[tuple]:
    """Returns samples of what was drawn, which names are not to cover."""
    full, coarse = mean[mean.index == FULL], mean[mean.index != FULL]
    ax.plot(mean["bpp"], mean["psnr"], color=colour, linewidth=1.0, zorder=2)
    for bits, row in mean.iterrows():
        seeds = own[own["bits"] == bits]["psnr"].to_numpy()
        alone = len(mean) == 1 or bits == FULL
        ax.errorbar(row["bpp"], row["psnr"], half_interval(seeds) if len(seeds) > 2 else None, color=colour,
                    marker=shape, markersize=5 if alone else 2.5, linewidth=0.8 if alone else 0.4, zorder=3,
                    markerfacecolor="white" if bits == FULL else colour)  # fmt: skip
    for _, row in mean[mean.index == 0].iterrows():  # a discrete model: from its coded to its nominal rate
        ax.plot([row["bpp"], row["nominal"]], [row["psnr"]] * 2, color=colour, linewidth=0.6, alpha=0.7, zorder=1)
        ax.plot(row["nominal"], row["psnr"], marker="|", color=colour, markersize=5, zorder=2)
    for _, row in mean.dropna(subset=["prior"]).iterrows():
        ax.plot([row["prior"], row["bpp"]], [row["psnr"]] * 2, color=colour, linewidth=0.6, linestyle=":", zorder=1)
        ax.plot(row["prior"], row["psnr"], marker="*", color=colour, markersize=6, zorder=3)
    samples = [tuple(one) for one in mean[["bpp", "psnr"]].to_numpy()]
    for _, seeds in own.groupby("bits"):  # the bar of their interval, about
        samples += [(seeds["bpp"].mean(), psnr) for psnr in np.linspace(seeds["psnr"].min(), seeds["psnr"].max(), 12)]
    for _, row in mean[mean.index == 0].iterrows():
        samples += _along(np.array([row["bpp"], row["nominal"]]), np.array([row["psnr"]] * 2), 12)
    samples += [(row["prior"], row["psnr"]) for _, row in mean.dropna(subset=["prior"]).iterrows()]
    return samples + _along(mean["bpp"].to_numpy(), mean["psnr"].to_numpy()) if len(coarse) and len(full) else samples


def _draw_codec(ax: Axes, curves: dict, title: str, colour: str, limits: tuple, names: list) -> list[tuple]:
    seen = []
    for kind, style in (("mosaic", "-"), ("files", "--")):
        line = pd.DataFrame(curves.get(kind) or [], columns=["bpp", "psnr"]).sort_values("bpp")
        if line.empty:
            continue
        ax.plot(line["bpp"], line["psnr"], color=colour, linestyle=style, linewidth=1.0, zorder=1.5)
        seen += _along(line["bpp"].to_numpy(), line["psnr"].to_numpy())
        (left, right), (low, high) = limits
        rate, quality = np.log(line["bpp"]), line["psnr"]
        end = min(np.interp(np.log(0.9 * right), rate, quality), high - 0.06 * (high - low))  # of what is in view
        bpp = float(np.exp(np.interp(end, quality, rate)))
        if quality.min() <= end and low < end and left < bpp < right:
            names.append((title if kind == "mosaic" else f"{title}, a file each", bpp, end, colour))
    return seen


def _along(x: np.ndarray, y: np.ndarray, samples: int = 200) -> list[tuple]:
    """Points along a polyline, evenly in log x."""
    at = np.geomspace(x.min(), x.max(), samples)
    order = np.argsort(x)
    return list(zip(at, np.interp(np.log(at), np.log(x[order]), y[order]), strict=True))


def _keys(points: pd.DataFrame, codecs: bool) -> list[Line2D]:
    plain = {"color": "black", "linestyle": "", "marker": "o", "markersize": 5}
    keys = [Line2D([], [], **plain, label="codes alone, as a bitstream")]
    keys.append(Line2D([], [], color="black", linewidth=0.6, marker="|", markersize=5, label="their nominal rate"))
    if (points["bits"] == FULL).any():
        coarse = points["bits"][points["bits"].between(1, FULL - 1)]
        bits = f", {coarse.min():g} to {coarse.max():g} bits" if len(coarse) else ""
        keys.append(Line2D([], [], color="black", marker="o", markersize=2.5, label=f"continuous latents{bits}"))
        keys.append(Line2D([], [], **plain, markerfacecolor="white", label="as 32-bit floats (the paper's)"))
    if points["prior"].notna().any():
        keys.append(Line2D([], [], **(plain | {"marker": "*"}), label="under a learnt prior"))
    if codecs:
        keys.append(Line2D([], [], color="#4D4D4D", label="codec: mosaic of many images (dashed: a file each)"))
    return keys
