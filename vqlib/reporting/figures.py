"""One function per kind of figure: tables and arrays in, a matplotlib Figure out. Nothing here reads a file.

``colours`` maps models to colours and comes from ``style.palette``, so that a model looks the same everywhere.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vqlib.reporting.families import TITLES, family
from vqlib.reporting.labels import label_points
from vqlib.reporting.statistics import late_peaks
from vqlib.reporting.style import WIDTH, marker, styled
from vqlib.reporting.tables import half_interval, number

MOST_THUMBNAILS = 64
FEW = 8  # models that one panel can show


@styled
def training_curves(history: pd.DataFrame, colours: dict[str, str], references: dict[str, dict[str, float]]) -> Figure:
    """The paper's Figure 1: reconstruction and quantization loss (columns) in training and validation (rows).

    Args:
        history: rows of Results.history of the models to be drawn; one line per run.
        references: the paper's values at the end, ``references[split][column]``, drawn dashed.

    Runs with late peaks are named at the highest of theirs.
    """
    shades = _shades(history, colours)
    columns = {"recon_loss": "reconstruction loss (MSE)", "commitment_loss": "quantization loss (MSE)"}
    figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="col")
    for row, split in zip(axes, ("train", "validation"), strict=True):
        part = history[history["split"] == split]
        for ax, (column, label) in zip(row, columns.items(), strict=True):
            for run, line in part.groupby("run", sort=False):
                colour = shades[run]
                if split == "train" and column == "recon_loss":
                    ax.plot(line["step"], line["recon_loss_max"], color=colour, linewidth=0.8, linestyle=":")
                ax.plot(line["step"], line[column], color=colour, **_dots(line))
            ax.axhline(references[split][column], color="black", linewidth=0.8, linestyle="--")
            ax.set_ylabel(label)
            ax.set_title("training" if split == "train" else "validation", loc="left")
            log_axis(ax, "y")
            _steps(ax)
    for ax in axes[0]:
        ax.set_xlabel("")
    handles = _keys_of_runs(history, shades, colours)
    handles += [
        Line2D([], [], color="black", linewidth=0.8, linestyle=":", label="highest single step of an interval"),
        Line2D([], [], color="black", linewidth=0.8, linestyle="--", label="the paper's last value, on CIFAR-10"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(3, len(handles)))
    training = history[history["split"] == "train"]
    names = []
    for run, line in training.groupby("run", sort=False):
        if peaks := late_peaks(line):
            step, _ = max(peaks, key=lambda peak: peak[1])
            names.append((run, step, line.set_index("step")["recon_loss_max"][step], shades[run]))
    label_points(axes[0, 0], names, training[["step", "recon_loss_max"]].to_numpy())
    return figure


def _keys_of_runs(history: pd.DataFrame, shades: dict[str, str], colours: dict[str, str]) -> list[Line2D]:
    """A key for every run, or where these are many for every model, since runs that matter are named in the figure."""
    if len(shades) <= FEW:
        return [Line2D([], [], color=shade, label=run) for run, shade in shades.items()]
    runs = history.groupby("variant", sort=False)["run"].nunique()
    return [Line2D([], [], color=colours[model], label=f"{model}, {count} run{'s' * (count > 1)}, dark to light")
            for model, count in runs.items()]  # fmt: skip


def _shades(history: pd.DataFrame, colours: dict[str, str]) -> dict[str, str]:
    """A colour per run: the model's own, from dark to light over its seeds."""
    shades = {}
    for model, part in history.groupby("variant", sort=False):
        runs = list(dict.fromkeys(part["run"]))
        ramp = sns.blend_palette(["black", colours[model], "white"], 101)
        places = [50] if len(runs) == 1 else np.linspace(25, 70, len(runs)).round().astype(int)
        shades |= {run: ramp[place] for run, place in zip(runs, places, strict=True)}
    return shades


@styled
def learning_curves(history: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """Validation error and, where there are codes, perplexity against step; a band spans the seeds of a model.

    With many models there is a row for each family.
    """
    part = history[history["split"] == "validation"]
    rows = by_family(dict.fromkeys(part["variant"]))
    panels = {"recon_loss": "MSE", "perplexity": "perplexity"}
    panels = {column: label for column, label in panels.items() if part[column].notna().any()}
    figure = Figure(figsize=(WIDTH, 2.6 if len(rows) == 1 else 1.65 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True, sharey="col" if len(rows) > 1 else False)
    for row, (line, (title, models)) in enumerate(zip(axes, rows.items(), strict=True), 1):
        for ax, (column, label) in zip(line, panels.items(), strict=True):
            for place, model in enumerate(models):
                _curve(ax, part[part["variant"] == model], column, colours[model], marker(model, colours), place)
            ax.set_ylabel(f"{label} (validation)" if len(rows) == 1 else label)
            log_axis(ax, "y")
            _between(ax)
            _steps(ax)
            if row < len(rows):
                ax.set_xlabel("")
        if title:
            line[0].set_title(title, loc="left")
        keys = [Line2D([], [], color=colours[model], marker=marker(model, colours), markersize=3.5, label=model)
                for model in models]  # fmt: skip
        line[-1].legend(handles=keys, loc="upper left", bbox_to_anchor=(1.02, 1.08), labelspacing=0.25)
    return figure


def by_family(models: Iterable[str]) -> dict[str, list[str]]:
    """Title -> models: all in one while they are few, else a row for each family, led by vq.

    Many rows share one scale, which identity's error would stretch, so it is left out of them.
    """
    models = list(models)
    if len(models) <= FEW:
        return {"": models}
    rows: dict[str, list[str]] = {}
    for model in models:
        if family(model) != "reference":
            rows.setdefault(TITLES[family(model)], ["vq"] if "vq" in models else []).append(model)
    return rows


def _curve(ax: Axes, part: pd.DataFrame, column: str, colour: str, shape: str, place: int) -> None:
    seeds = part.dropna(subset=[column]).groupby("step")[column]
    ax.plot(seeds.mean(), color=colour, marker=shape, markersize=3.5, markevery=(0.02 * (place % 5), 0.2))
    ax.fill_between(seeds.mean().index, seeds.min(), seeds.max(), color=colour, alpha=0.2, lw=0)


@styled
def reconstructions(originals: np.ndarray, rows: dict[str, np.ndarray]) -> Figure:
    """The paper's Figures 2 and 3: the same images (N, S, S, 3) for every row, at most 64 thumbnails in all.

    Args:
        rows: reconstructions (N, S, S, 3) by label; a label may have two lines.
    """
    count = len(rows) + 1
    shown = max(1, min(10, len(originals), MOST_THUMBNAILS // count))
    labelled = {"original": originals, **rows}
    gap, size = max(1, originals.shape[1] // 16), originals.shape[1]
    padding = ((0, 0), (0, gap), (0, gap), (0, 0))
    bands = [np.pad(images[:shown], padding, constant_values=255) for images in labelled.values()]
    mosaic = np.concatenate([np.concatenate(list(band), axis=1) for band in bands])[:-gap, :-gap]
    longest = max(len(line) for label in labelled for line in label.split("\n"))
    left, margin = 0.15 + 0.063 * longest, 0.03  # inches
    scale = min((WIDTH - left - margin) / mosaic.shape[1], 0.62 / size, 8.5 / mosaic.shape[0])  # inches per pixel
    width, height = (length * scale for length in (mosaic.shape[1], mosaic.shape[0]))
    total = height + 2 * margin
    figure = Figure(figsize=(WIDTH, total))
    start = left + (WIDTH - left - width - margin) / 2  # few columns stand in the middle
    ax = figure.add_axes((start / WIDTH, margin / total, width / WIDTH, height / total))
    ax.imshow(mosaic, interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    for row, label in enumerate(labelled):
        centre = row * (size + gap) + size / 2
        ax.text(-0.1 / scale, centre, label, ha="right", va="center", linespacing=1.35)
    return figure


@styled
def loss_bars(ours: pd.DataFrame, paper: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """The paper's Figure 5: the four losses of every model, ours above and the paper's below, on one scale for a loss.

    Args:
        ours, paper: columns model, loss ("reconstruction" or "quantization"), split ("train" or "test"), value;
            several rows of one bar are its seeds. ``paper`` also has ``variant``, which gives the colour.
    """
    counts = [frame["model"].nunique() for frame in (ours, paper)]
    figure = Figure(figsize=(WIDTH, 1.5 + min(0.3, 8.0 / sum(counts)) * sum(counts)), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=counts)
    for row, frame, whose in zip(axes, (ours, paper), ("this experiment", "the paper, on CIFAR-10"), strict=True):
        for ax, loss in zip(row, ("reconstruction", "quantization"), strict=True):
            _bars(ax, frame[frame["loss"] == loss], list(dict.fromkeys(frame["model"])), colours, frame is paper)
            ax.set_title(f"{loss}, {whose}", loc="left")
        row[1].tick_params(axis="y", length=0)
    for ax in axes[0]:
        ax.tick_params(labelbottom=True)
    axes[1, 0].set_xlabel("reconstruction loss (MSE on [-1, 1])")
    axes[1, 1].set_xlabel("quantization loss (mean squared $z_q - z_e$)")
    handles = [
        Patch(facecolor="dimgray", edgecolor="dimgray", label="test (upper bar)"),
        Patch(facecolor="lightgray", edgecolor="dimgray", label="train (lower bar)"),
        Patch(facecolor="white", edgecolor="dimgray", hatch="/////", label="the paper's, read off its figures"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _bars(ax: Axes, frame: pd.DataFrame, models: list[str], colours: dict[str, str], hatched: bool) -> None:
    for (model, split), bar in frame.dropna(subset=["value"]).groupby(["model", "split"], sort=False):
        colour = colours[bar["variant"].iloc[0] if hatched else model]
        middle = models.index(model) + (-0.19 if split == "test" else 0.19)
        values = bar["value"].to_numpy(dtype=float)
        face = "white" if hatched else colour if split == "test" else sns.blend_palette([colour, "white"], 10)[6]
        hatch = None if not hatched else "//////" if split == "test" else "///"
        error = half_interval(values) if len(values) > 1 else None
        ax.barh(middle, values.mean(), 0.34, facecolor=face, edgecolor=colour, hatch=hatch, linewidth=0.7,
                xerr=error, error_kw={"linewidth": 0.8})  # fmt: skip
        if len(values) > 1:
            ax.plot(values, np.full(len(values), middle), ".", color="black", markersize=2.5)
        text = f"{values.mean():.4f}" if hatched else number(float(values.mean()))  # the paper's are no more precise
        ax.annotate(text, (max(values.max(), values.mean() + (error or 0)), middle), (3, 0),
                    textcoords="offset points", va="center", fontsize=6.5)  # fmt: skip
    ax.set_yticks(range(len(models)), models)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.margins(x=0.16)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.4g}"))


class _RoundNumbers(ticker.LogLocator):
    """Ticks at 1, 2 and 5; at powers of ten alone over more than four decades, or where those find no room."""

    def tick_values(self, vmin: float, vmax: float) -> np.ndarray:
        self.set_params(subs=(1, 2, 5))
        found = super().tick_values(vmin, vmax)  # none where it would leave out decades
        if vmax <= 1e4 * vmin and len(found):
            return found
        self.set_params(subs=(1,))
        return super().tick_values(vmin, vmax)


def log_axis(ax: Axes, name: str) -> None:
    """Make the axis ``x`` or ``y`` logarithmic, with plain numbers at round ones."""
    ax.set(**{f"{name}scale": "log"})
    axis = getattr(ax, f"{name}axis")
    axis.set_major_locator(_RoundNumbers())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _between(ax: Axes) -> None:
    """Numbers at 3, 4 and 7 too on a logarithmic y axis of less than a decade, where 1, 2 and 5 are too few; also at
    1.5 where it is less than half a decade."""
    low, high = ax.get_ylim()
    numbered = ("3.0", "4.0", "7.0", *(["1.5"] if high / low < 10**0.5 else []))
    if high / low < 10:
        ax.yaxis.set_minor_locator(ticker.LogLocator(subs=(1.5, 3, 4, 6, 7, 8, 9)))
        ax.yaxis.set_minor_formatter(
            ticker.FuncFormatter(lambda value, _: f"{value:,.6g}" if f"{value:.1e}"[:3] in numbered else "")
        )


def _steps(ax: Axes) -> None:
    ax.set_xlabel("training step")
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5))
    ax.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def _dots(line: pd.DataFrame) -> dict:
    """Markers where there are too few rows for a line to show them."""
    return {"marker": ".", "markersize": 4} if len(line) <= 5 else {}
