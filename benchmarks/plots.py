"""The figures of reports/benchmarks: results in, matplotlib Figures out."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.text import middle
from vqlib.quantize import SEARCH_BUDGET
from vqlib.reporting.figures import log_axis
from vqlib.reporting.style import WIDTH, marker, palette, styled

WAYS = {
    "ours": "#0072B2",
    "straightforward": "#7F7F7F",
    "cdist + argmin": "#7F7F7F",
    "vector-quantize-pytorch": "#D55E00",
}
GOAL = 0.03  # of a step of vq: what a bottleneck may cost over vq
LEAST = 1e6  # bytes: less memory is drawn as this much, since a process is counted in pages and has its own


@styled
def step(result: dict) -> Figure:
    """Images a second of both ways, one panel a size, as every round saw them."""
    figure, axes = plt.subplots(1, len(result["speed"]), figsize=(WIDTH, 2.0), layout="constrained", squeeze=False)
    for axis, row in zip(axes[0], result["speed"], strict=True):
        for place, (way, seconds) in enumerate(row["seconds"].items()):
            rates = [row["batch"] / s for s in seconds]
            axis.bar(place, row["batch"] / middle(seconds), 0.6, color=WAYS[way], alpha=0.55)
            axis.plot([place] * len(rates), rates, ".", color=WAYS[way], clip_on=False)
        axis.set_xticks(range(len(row["seconds"])), list(row["seconds"]))
        axis.set_title(f"{row['size']} px, width {row['width']}, batch {row['batch']}")
        axis.set_ylabel("images/s")
        axis.set_ylim(bottom=0)
    return figure


@styled
def bottlenecks(result: dict) -> Figure:
    """The bottleneck alone in percent of the step of vq, one panel a size; dashed: what it may cost."""
    names = list(result["alone"][0]["seconds"])
    colours = palette(names)
    panels = len(result["alone"])
    figure, axes = plt.subplots(1, panels, figsize=(WIDTH, 0.7 + 0.16 * len(names)), layout="constrained", sharey=True,
                                squeeze=False)  # fmt: skip
    for axis, alone, steps in zip(axes[0], result["alone"], result["steps"], strict=True):
        of = middle(steps["seconds"]["vq"])
        shares = [100 * middle(alone["seconds"][name]) / of for name in names]
        for place, (name, share) in enumerate(zip(names, shares, strict=True)):
            axis.plot(share, place, "o", markersize=3.5, color=colours[name])
        goal = axis.axvline(shares[names.index("vq")] + 100 * GOAL, color="black", linewidth=0.8, linestyle="--")
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("forward and backward alone, % of a step of vq")
        axis.grid(axis="y", linewidth=0.3)
        log_axis(axis, "x")
        axis.set_title(f"width {steps['width']}, batch {steps['batch']}, {steps['size']} px")
    axes[0][0].invert_yaxis()
    figure.legend(handles=[goal], labels=[f"the goal: vq and {GOAL:.0%} of its step"], loc="outside upper center")
    return figure


@styled
def search(result: dict) -> Figure:
    """Time and peak memory against K, one column a grid; dashed: the budget of a block of scores."""
    grids = sorted({row["grid"] for row in result["rows"]})
    figure, axes = plt.subplots(2, len(grids), figsize=(WIDTH, 3.6), layout="constrained", sharex=True, squeeze=False)
    for column, grid in enumerate(grids):
        rows = [row for row in result["rows"] if row["grid"] == grid]
        for place, way in enumerate(dict.fromkeys(row["way"] for row in rows)):
            mine = [row for row in rows if row["way"] == way]
            codes = [row["codes"] for row in mine]
            look = {"color": WAYS[way], "marker": "osD"[place], "markersize": 3, "label": way}
            axes[0][column].plot(codes, [1000 * middle(row["seconds"]) for row in mine], **look)
            if all(row["memory"] is not None for row in mine):
                axes[1][column].plot(codes, [max(row["memory"], LEAST) / 1e6 for row in mine], **look)
        budget = SEARCH_BUDGET[result["device"]] / 1e6
        axes[1][column].axhline(budget, color="black", linewidth=0.8, linestyle="--", label="budget of a block of ours")
        axes[0][column].set_title(f"grid {grid}x{grid}, {rows[0]['batch']} images, {rows[0]['width']} channels")
        axes[1][column].set_xlabel("codes K")
    for row, label in zip(axes, ("time (ms)", "peak memory (MB)"), strict=True):
        row[0].set_ylabel(label)
        for axis in row:
            axis.set_xscale("log", base=2)
            log_axis(axis, "y")
    figure.legend(*axes[1][0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@styled
def growth(result: dict) -> Figure:
    """Images a second and memory against each size, one column an axis; dashed: operations at their best speed here."""
    names = list(dict.fromkeys(row["axis"] for row in result["rows"]))
    figure, axes = plt.subplots(2, len(names), figsize=(WIDTH, 3.4), layout="constrained", sharex="col", squeeze=False)
    best = max(row["operations"] / middle(row["seconds"]) for row in result["rows"])
    colour, sign = WAYS["ours"], marker("vq", palette(["vq"]))
    for column, name in enumerate(names):
        rows = [row for row in result["rows"] if row["axis"] == name]
        at = [row[name] for row in rows]
        top, bottom = axes[0][column], axes[1][column]
        top.plot(at, [row["batch"] / middle(row["seconds"]) for row in rows], marker=sign, markersize=3, color=colour)
        top.plot(at, [row["batch"] * best / row["operations"] for row in rows], "--", color="#7F7F7F", linewidth=0.8)
        if all(row["memory"] is not None for row in rows):
            bottom.plot(at, [max(row["memory"], LEAST) / 1e6 for row in rows], marker=sign, markersize=3, color=colour)
        bottom.set_xlabel({"codes": "codes K", "size": "image size (px)"}.get(name, name))
        bottom.set_xscale("log", base=2)
        for axis in (top, bottom):
            log_axis(axis, "y")
    axes[0][0].set_ylabel("images/s")
    axes[1][0].set_ylabel("peak memory (MB)")
    figure.legend(handles=axes[0][0].lines, labels=["measured", "operations at the best speed of any point"],
                  loc="outside upper center", ncols=2)  # fmt: skip
    return figure
