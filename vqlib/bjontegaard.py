"""Bjontegaard's mean rate difference between two rate-distortion curves. No torch: the report is drawn with it."""

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

Point = tuple[float, float]  # bits per pixel, PSNR in dB


def bd_rate(anchor: Sequence[Point], points: Sequence[Point], at_least: float = 0.0) -> tuple[float | None, str | None]:
    """Mean difference in rate at equal PSNR, in percent: -50 where ``points`` need half the bits of ``anchor``.

    log10 of the rate is interpolated over PSNR by PCHIP, which never overshoots, and integrated over the PSNRs that
    both curves reach (Bjontegaard, VCEG-M33, 2001; PCHIP as in VCEG-AI11 and in JCT-VC's sheets). Points that another
    one of their own curve beats or equals in both rate and PSNR are left out, since a curve has one rate per PSNR.

    Args:
        at_least: PSNR in dB that the curves must have in common, below which a mean over it says little.

    Returns:
        the difference and None, or None and one line that says why there is no such number.
    """
    curves = []
    for name, curve in (("the anchor", anchor), ("the curve", points)):
        kept = frontier(curve)
        if len(kept) < 2:
            return None, f"{name} has {len(kept)} point{'s' * (len(kept) != 1)} of use; a curve needs two"
        curves.append(kept)
    low = max(curve[0, 1] for curve in curves)
    high = min(curve[-1, 1] for curve in curves)
    if low >= high:
        spans = (f"{curve[0, 1]:.4g} to {curve[-1, 1]:.4g} dB" for curve in curves)
        return None, f"no PSNR in common: {' and '.join(spans)}"
    if high - low < at_least:
        return None, f"{high - low:.2f} dB in common: less than {at_least:g} dB"
    areas = [PchipInterpolator(curve[:, 1], np.log10(curve[:, 0])).integrate(low, high) for curve in curves]
    return float(100 * (10 ** ((areas[1] - areas[0]) / (high - low)) - 1)), None


def frontier(curve: Sequence[Point]) -> np.ndarray:
    """(N, 2) rate and PSNR, both rising: the finite points of positive rate that no cheaper one equals or beats."""
    rows = np.asarray([point for point in curve if None not in point], dtype=float).reshape(-1, 2)
    rows = rows[np.isfinite(rows).all(axis=1) & (rows[:, 0] > 0)]
    rows = rows[np.lexsort((-rows[:, 1], rows[:, 0]))]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], rows[:, 1]]))[:-1]
    return rows[rows[:, 1] > best]
