"""Numbers and tables of reports/benchmarks as text."""

from benchmarks.measure import quartiles
from vqlib.reporting.tables import NOTHING


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def megabytes(value: int | None) -> str:
    return NOTHING if value is None else f"{value / 1e6:,.0f} MB"


def size_of(row: dict) -> str:
    return f"{row['size']} px, width {row['width']}, K {row['codes']}, batch {row['batch']}"


def middle(seconds: list[float]) -> float:
    return quartiles(seconds)["median"]


def effect(ratios: list[float]) -> str:
    """Ratios as a change in percent with quartiles; the quartiles alone where they are wider than the change."""
    found = {key: value - 1 for key, value in quartiles(ratios).items()}
    spread = f"{found['low']:+.1%} to {found['high']:+.1%}"
    drowned = found["high"] - found["low"] > abs(found["median"])
    return f"in the noise: {spread}" if drowned else f"{found['median']:+.1%} ({spread})"


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
