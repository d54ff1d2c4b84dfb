"""Tables as Markdown, CSV and LaTeX; the one way in which a number is printed, and its interval over seeds."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
from scipy.special import stdtrit

NOTHING = "–"  # printed where a number does not exist
LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "±": r"$\pm$",
         "–": "--", "×": r"$\times$", "·": r"$\cdot$", "√": r"$\surd$", "β": r"$\beta$", "‖": r"$\|$", "²": r"$^2$",
         "^": r"\^{}", "{": r"\{", "}": r"\}", "“": "``", "”": "''", "’": "'", "≤": r"$\le$", "≥": r"$\ge$",
         "…": r"\ldots{}", "~": r"\~{}", "<": r"$<$", ">": r"$>$"}  # fmt: skip


def number(value: float | int | None, digits: int = 4) -> str:
    """Significant digits, in full notation from 1e-4 to 1e7; an integer in full; a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, Integral) or value == 0:
        return f"{value:,.0f}"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    magnitude = int(f"{abs(value):.{digits - 1}e}".partition("e")[2])  # of the rounded value: 9.9999 is 10.00
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def plain(value: object) -> str:
    """A setting as text: without the trailing zeros that a measured number has."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else NOTHING if value is None else str(value)


def half_interval(values: np.ndarray) -> float:
    """Half the 95 % confidence interval of the mean of ``values``, NaN for fewer than two."""
    count = len(values)
    return float(stdtrit(count - 1, 0.975) * values.std(ddof=1) / count**0.5) if count > 1 else float("nan")


def with_interval(mean: float, half: float, digits: int = 4) -> str:
    """``0.0364 ± 0.0031``: a mean and half of its interval; the mean alone where there is no interval, or one of
    equal values."""
    return number(mean, digits) + (f" ± {number(half, 2)}" if half > abs(mean) * 1e-9 else "")


@dataclass(frozen=True)
class Table:
    """``shown`` holds the text of every cell, the first column naming the row; ``values`` the numbers behind it.

    ``groups`` gives every row a title; rows of one title stand together under it. ``words`` is for cells of text.
    """

    shown: pd.DataFrame
    values: pd.DataFrame
    groups: tuple[str, ...] = ()
    words: bool = False

    def markdown(self) -> str:
        width = self.shown.shape[1]
        rule = [":--", *([":--" if self.words else "--:"] * (width - 1))]
        rows = [self.shown.columns, rule]
        for title, row in self._titled():
            rows += [[f"*{title}*", *[""] * (width - 1)]] if title else []
            rows.append([cell.replace("|", r"\|") for cell in row])
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def latex(self) -> str:
        """For the package booktabs."""
        width = self.shown.shape[1]
        columns = rf"p{{{0.9 / width:.2g}\linewidth}}" * width if self.words else "l" + "r" * (width - 1)
        lines = [rf"\begin{{tabular}}{{{columns}}}"]
        lines += [r"\toprule", _latex_row(self.shown.columns), r"\midrule"]
        for title, row in self._titled():
            if title:
                lines.append(rf"\addlinespace \multicolumn{{{width}}}{{l}}{{\textit{{{_latex(title)}}}}} \\")
            lines.append(_latex_row(row))
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def csv(self) -> str:
        return self.values.to_csv(index=False, float_format="%.4g", lineterminator="\n")

    def _titled(self) -> Iterator[tuple[str | None, tuple[str, ...]]]:
        """Every row, with the title that stands above it or None."""
        before = None
        groups = self.groups or (None,) * len(self.shown)
        for title, row in zip(groups, self.shown.itertuples(index=False), strict=True):
            yield (title if title != before else None), tuple(row)
            before = title


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(cell: str) -> str:
    text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell)  # links
    escaped = ["".join(LATEX.get(character, character) for character in part) for part in re.split("`([^`]+)`", text)]
    escaped[1::2] = [rf"\texttt{{{code}}}" for code in escaped[1::2]]
    return re.sub(r"\*\*(.*?)\*\*", r"\\textbf{\1}", "".join(escaped))
