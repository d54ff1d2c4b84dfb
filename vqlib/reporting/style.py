"""How figures look: fonts and widths for print, one colour and marker per model, and the same bytes each time."""

import functools
import io
from collections.abc import Callable, Iterable

import matplotlib as mpl
import matplotlib.style
import seaborn as sns
from matplotlib.figure import Figure

WIDTH = 6.9  # inches: two columns of a paper
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
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType, embedded
}
KNOWN = {"vq": "#0072B2", "projected": "#D55E00", "projected_rows": "#E69F00", "identity": "#7F7F7F"}  # Okabe and Ito
SPARE = ("#009E73", "#CC79A7", "#56B4E9", "#332288", "#882255", "#999933", "#DDCC77", "#661100")
MARKERS = "oDs^vPX<>*"


def palette(variants: Iterable[str]) -> dict[str, str]:
    """A colour for every variant: fixed for known names; the others, in their order, take the spare colours
    (Okabe-Ito, then Tol's "muted"), and lighter ones when those are used up."""
    unknown = [name for name in variants if name not in KNOWN]
    colours = dict(KNOWN)
    for place, name in enumerate(unknown):
        times, spare = divmod(place, len(SPARE))
        colours[name] = sns.blend_palette([SPARE[spare], "white"], times + 2).as_hex()[times]
    return colours


def marker(model: str, colours: dict[str, str]) -> str:
    """The same marker for the same model everywhere, by its place in the palette."""
    return MARKERS[list(colours).index(model) % len(MARKERS)]


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
        figure.savefig(buffer, format=kind, metadata=dict.fromkeys(nothing))
    return buffer.getvalue()
