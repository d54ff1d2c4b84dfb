"""Figures of single questions: use of the codes, gains, the frequency model's S, stability under intervention."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vqlib.reporting.figures import by_family, log_axis
from vqlib.reporting.statistics import BURST, PEAK
from vqlib.reporting.style import WIDTH, marker, styled
from vqlib.reporting.tables import number

ACROSS = 2  # panels in a row
FEW_LEVELS = 32  # of a gain, that are drawn one by one


@styled
def codebook_usage(shares: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """Share of every code, the most used first, against its rank: a codebook in even use is flat and then falls.

    Args:
        shares: columns model, run, rank, share; the mean over the runs of a model is drawn.
    """
    rows = by_family(dict.fromkeys(shares["model"]))
    across = min(ACROSS, len(rows))
    down = -(-len(rows) // across)
    figure = Figure(figsize=(WIDTH, 2.8 if down == 1 else 1.9 * down), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    means = shares.groupby(["model", "rank"])["share"].mean()
    means = means[means > 0]
    for ax, (title, models) in zip(panels, rows.items(), strict=False):
        for model in models:
            ax.plot(means[model], color=colours[model], marker=marker(model, colours), markersize=3, markevery=0.15)
        ax.set_title(title, loc="left")
        keys = [Line2D([], [], color=colours[model], marker=marker(model, colours), markersize=3, label=model)
                for model in models]  # fmt: skip
        ax.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.0, 1.08), labelspacing=0.25, fontsize=6.5)
        ax.set(xscale="log", yscale="log", xlabel="rank of the code", ylabel="share of positions")
        ax.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        ax.label_outer(remove_inner_ticks=False)
    for ax in panels[len(rows) :]:
        ax.set_axis_off()
    if len(rows) > across and len(rows) % across:  # nothing stands under the last column
        panels[len(rows) - across].tick_params(labelbottom=True)
    panels[0].set_ylim(bottom=max(means.min(), 1e-8) / 2)
    return figure


@styled
def gain_distributions(gains: pd.DataFrame, levels: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """Distribution of continuous gains (left), and use of the levels of quantised ones (right); what there is, a row
    for every model.

    Args:
        gains: columns model, run, middle, density.
        levels: columns model, run, value (signed), share (times the number of levels); sorted by value.
        Both have one run of a model, since edges and levels differ between seeds.
    """
    panels = [(draw, frame) for draw, frame in ((_continuous, gains), (_levels, levels)) if not frame.empty]
    most = max(frame["model"].nunique() for _, frame in panels)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.32 * max(most, 4)), layout="constrained")
    for part, (draw, frame) in zip(np.atleast_1d(figure.subfigures(1, len(panels))), panels, strict=True):
        axes = part.subplots(frame["model"].nunique(), 1, squeeze=False, sharex=True, gridspec_kw={"hspace": 0})[:, 0]
        draw(axes, frame, colours)
        for ax, model in zip(axes, dict.fromkeys(frame["model"]), strict=True):
            ax.set_ylim(bottom=0)
            ax.set_ylabel(model, rotation="horizontal", ha="right", va="center", labelpad=4)
            ax.spines["left"].set_visible(False)
            ax.tick_params(axis="y", left=False, labelleft=False)
            ax.tick_params(axis="x", bottom=ax is axes[-1])
    return figure


def _continuous(axes: Sequence[Axes], gains: pd.DataFrame, colours: dict[str, str]) -> None:
    for ax, (model, own) in zip(axes, gains.groupby("model", sort=False), strict=True):
        half = own["middle"].diff().mean() / 2
        edges = [*(own["middle"] - half), own["middle"].iloc[-1] + half]
        ax.stairs(own["density"], edges, fill=True, color=colours[model], alpha=0.35)
        ax.stairs(own["density"], edges, baseline=None, color=colours[model], linewidth=1.0)
        ax.axvline(1, color="dimgray", linewidth=0.8, linestyle=":")
        ax.margins(y=0.1)
    axes[0].set_title("continuous gains, density", loc="left")
    axes[-1].set(xlabel="gain", xlim=_bulk(gains))


def _levels(axes: Sequence[Axes], levels: pd.DataFrame, colours: dict[str, str]) -> None:
    for ax, (model, own) in zip(axes, levels.groupby("model", sort=False), strict=True):
        if len(own) <= FEW_LEVELS:
            ax.vlines(own["value"], 0, own["share"], color=colours[model], linewidth=1.0)
            ax.plot(own["value"], own["share"], color=colours[model], linestyle="", marker="o", markersize=3)
        else:  # no line over the gap between the signs
            for _, side in own.groupby(own["value"] > 0):
                ax.fill_between(side["value"], side["share"], color=colours[model], alpha=0.35, linewidth=0)
                ax.plot(side["value"], side["share"], color=colours[model], linewidth=0.8)
        ax.axvline(0, color="dimgray", linewidth=0.8, linestyle=":")
        ax.margins(x=0.04, y=0.1)
    axes[0].set_title("quantised gains, use of the levels", loc="left")
    axes[-1].set_xlabel("gain (value of a level, with its sign)")


def _bulk(gains: pd.DataFrame) -> tuple[float, float]:
    """From the least 1st to the greatest 99th percentile of the models and a quarter more at each end; but no more than
    three times as wide as between those of the median model, so that far outliers of one do not set the scale."""
    ends = []
    for _, own in gains.groupby("run", sort=False):
        below, middle = (own["density"].cumsum() / own["density"].sum()).to_numpy(), own["middle"].to_numpy()
        ends.append([middle[(below >= share).argmax()] for share in (0.01, 0.99)])
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    centre, widest = np.median(np.mean(ends, axis=1)), 3 * np.median(np.diff(ends, axis=1))
    low, high = max(low, centre - widest / 2), min(high, centre + widest / 2)
    return low - 0.25 * (high - low), high + 0.25 * (high - low)


@styled
def frequency(ours: pd.DataFrame, theirs: pd.DataFrame, colour: str) -> Figure:
    """The paper's Figure 4, stacked errors against S, with the fraction of continuous positions and the rate below.

    Args:
        ours: columns S, reconstruction, quantization, fraction, bpp; one row for every S, the VQ-VAE being S = K.
        theirs: columns S, reconstruction, quantization, the paper's.
    """
    values = sorted({*ours["S"], *theirs["S"]})
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[2.4, 1, 1])
    for frame, shift, hatch in ((ours, -0.2, None), (theirs, 0.2, "/////")):
        at = [values.index(value) + shift for value in frame["S"]]
        own = {"edgecolor": colour, "linewidth": 0.7, "width": 0.36, "hatch": hatch}
        top.bar(at, frame["reconstruction"], facecolor="white" if hatch else colour, **own)
        top.bar(at, frame["quantization"], bottom=frame["reconstruction"], facecolor="white" if hatch else "#E8E8E8",
                **(own | {"hatch": "..." if hatch else None}))  # fmt: skip
    for ax, column, label in ((middle, "fraction", "continuous\npositions (%)"), (bottom, "bpp", "bits per\npixel")):
        at = [values.index(value) for value in ours["S"]]
        heights = ours[column] * (100 if column == "fraction" else 1)
        ax.plot(at, heights, color=colour, marker="o", markersize=4, linestyle="")
        for x, y in zip(at, heights, strict=True):
            ax.annotate(number(float(y), digits=2 if column == "fraction" else 3), (x, y), (0, 4),
                        textcoords="offset points", ha="center", va="bottom", fontsize=6.5)  # fmt: skip
        ax.set_ylabel(label)
        ax.margins(y=0.35)
    top.set_ylabel("test loss (MSE)")
    bottom.set_xticks(range(len(values)), [f"{value:,}" for value in values])
    bottom.set_xlabel("S, the number of codes that stay discrete (the greatest: the VQ-VAE)")
    keys = [
        Patch(facecolor=colour, edgecolor=colour, label="reconstruction"),
        Patch(facecolor="#E8E8E8", edgecolor=colour, label="quantization, on top of it"),
        Patch(
            facecolor="white", edgecolor=colour, hatch="/////", label="the paper's, on CIFAR-10 (dots: quantization)"
        ),
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=3)
    return figure


@styled
def stability(table: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """A dot for every run: highest step of the second half, burst of the gradient, least norm of a code in use.

    Args:
        table: columns variant, rise, burst, least_used_norm and late_peaks, a row per run.
    """
    panels = {
        "rise": f"worst step of the second half\nover a typical one (peak: above {PEAK:g})",
        "burst": f"highest gradient norm over its\ninterval's mean (burst: above {BURST:g})",
        "least_used_norm": "least norm of a code in use\nafter a tenth of training",
    }
    panels = {column: label for column, label in panels.items() if table[column].notna().any()}
    limits = {"rise": PEAK, "burst": BURST}
    models = list(dict.fromkeys(table["variant"]))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.2 * len(models)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (column, label) in zip(axes, panels.items(), strict=True):
        for place, model in enumerate(models):
            values = table[table["variant"] == model][column].to_numpy(dtype=float)
            jitter = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0]
            ax.plot(values, place + np.asarray(jitter), linestyle="", marker=marker(model, colours), markersize=4,
                    color=colours[model], alpha=0.85)  # fmt: skip
        if column in limits:
            ax.axvline(limits[column], color="dimgray", linewidth=0.8, linestyle=":")
        log_axis(ax, "x")
        low, high = table[column].min(), max(table[column].max(), 2 * limits.get(column, 0))
        ax.set_xlim(min(low / 1.15, high / 6), high * 1.15)  # wide enough for two labelled ticks
        ax.set_xlabel(label)
        ax.grid(axis="y", alpha=0.3)
    axes[0].set_yticks(range(len(models)), models)
    axes[0].set_ylim(len(models) - 0.5, -0.5)
    return figure


@styled
def controls(rows: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """Test error over that of vq as bars, with the rate in words: what bits and a codebook kept in use give.

    Args:
        rows: columns model, ratio, low, high (NaN without an interval), bpp (nominal), measured (bpp of a bitstream,
            NaN where there is none), perplexity.
    """
    figure = Figure(figsize=(WIDTH, 0.9 + 0.24 * len(rows)), layout="constrained")
    ax = figure.subplots()
    end = max(1.0, rows[["ratio", "high"]].max().max())  # the words stand right of every bar and line
    for place, row in enumerate(rows.to_dict("records")):
        error = None if np.isnan(row["low"]) else [[row["ratio"] - row["low"]], [row["high"] - row["ratio"]]]
        colour = colours[row["model"]]
        ax.barh(place, row["ratio"], 0.6, color=colour, alpha=0.85, xerr=error, error_kw={"linewidth": 0.8})
        perplexity = "" if np.isnan(row["perplexity"]) else f", perplexity {number(row['perplexity'], 2)}"
        cost = f"{number(row['bpp'])} bpp nominal"
        if not np.isnan(row["measured"]):
            cost = f"{number(row['measured'], 3)} bpp measured, {number(row['bpp'])} nominal"
        ax.annotate(f"{number(row['ratio'], 3)} at {cost}{perplexity}", (end, place), (6, 0),
                    textcoords="offset points", va="center", fontsize=6.5)  # fmt: skip
    _halves(ax, len(rows))
    ax.set_yticks(range(len(rows)), rows["model"])
    ax.set_xlim(0, 1.8 * end)
    ax.set_xticks([tick for tick in ax.get_xticks() if tick <= end])
    ax.set_xlabel("test MSE over that of vq")
    return figure


def _halves(ax: Axes, count: int) -> None:
    for value in (0.5, 1.0):
        ax.axvline(value, color="dimgray", linewidth=0.8, linestyle=":", zorder=0)
    ax.set_ylim(count - 0.5, -0.5)
