"""How figures look: fonts and widths for print, one colour and marker per model, and the same bytes each time."""

import functools
import io
from collections.abc import Callable, Iterable

import matplotlib as mpl
import matplotlib.style
import seaborn as sns
from matplotlib.figure import Figure

from vqlib.reporting.families import family

WIDTH = 6.9  # inches: two columns of a paper
DPI = {"png": 200, "pdf": 300}  # for screens and for print, where it counts for pictures alone
STYLE = {
    **sns.axes_style("ticks"),
    "font.family": "DejaVu Sans",  # ships with matplotlib, so a figure is the same on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # TrueType, embedded
}
KNOWN = {"vq": "#0072B2", "projected": "#D55E00", "projected_rows": "#E69F00", "identity": "#7F7F7F"}  # Okabe and Ito
# A family of variants shares a hue (families.py); after Okabe and Ito, Tol and ColorBrewer. Shape tells members apart.
RAMPS = {
    "reference": ("#0072B2",),
    "projected": ("#8C510A", "#BF812D", "#543005"),
    "frequency": (
        "#CC79A7",
        "#882255",
        "#F2B6D8",
        "#AA4499",
        "#3B0F3B",
        "#D68FFF",
        "#7A3FD0",
        "#FF5FA2",
        "#59216B",
    ),
    "control": ("#56B4E9", "#08306B", "#2FB5C7", "#6A7FDB", "#9ECAE1", "#4D9DB8", "#332288"),
    "ours": ("#009E73", "#7FBC41", "#00563F", "#B8E186"),
    "intervention": ("#A50F15", "#FB6A4A", "#67000D", "#E34A6F", "#CB7A77", "#F4A0A0"),
    "other": ("#999933", "#CC6677", "#44AA99", "#661100", "#DDCC77", "#6699CC", "#117733", "#B15928"),
}
BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.5}  # of text that lines may cross
MARKERS = "oDs^vPX<>p"  # not the star, which is the rate under a prior


def palette(variants: Iterable[str]) -> dict[str, str]:
    """A colour for every variant: fixed for known names; the others take, in their order, the colours of their family,
    and lighter ones when those are used up."""
    colours, taken = dict(KNOWN), dict.fromkeys(RAMPS, 0)
    for name in dict.fromkeys(variants):
        if name not in colours:
            kind = family(name)
            times, place = divmod(taken[kind], len(RAMPS[kind]))
            taken[kind] += 1
            colours[name] = sns.blend_palette([RAMPS[kind][place], "white"], times + 2).as_hex()[times]
    return colours


def marker(model: str, colours: dict[str, str]) -> str:
    """The same marker for the same model everywhere, by its place among those of its family in the palette."""
    kin = [name for name in colours if family(name) == family(model)]
    return MARKERS[kin.index(model) % len(MARKERS)]


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make ``draw`` work in ``STYLE``, whatever the user's own matplotlib settings are."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs) -> Figure:
        with mpl.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return drawn


def image_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as ``png`` or ``pdf``, without date or program in it."""
    nothing = {"png": ("Software",), "pdf": ("CreationDate", "Creator", "Producer")}[kind]
    buffer = io.BytesIO()
    with mpl.style.context(["default", STYLE]):
        figure.savefig(buffer, format=kind, dpi=DPI[kind], metadata=dict.fromkeys(nothing))
    return buffer.getvalue()
