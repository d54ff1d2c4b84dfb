"""What the verdicts are decided by: intervals, exact tests, and what counts as a peak in training. Pure functions."""

from dataclasses import dataclass
from math import exp, nan, sqrt

import numpy as np
import pandas as pd
from scipy.special import stdtrit

ENOUGH = 3  # seeds for an interval
BURST = 10.0  # times the mean gradient norm of a logging interval
PEAK = 3.0  # times the median, over the logging intervals of the second half, of the highest single step
WARM_UP = 0.1  # of the steps, left out where gradient norms are compared


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means and its 95 % interval; the interval is NaN with fewer than ``ENOUGH`` values on a side."""

    value: float
    low: float
    high: float


def ratio(a: np.ndarray, b: np.ndarray) -> Ratio:
    """mean(a)/mean(b) of positive values, with Welch's t interval of its logarithm (delta method)."""
    a, b = (np.asarray(values, dtype=float) for values in (a, b))
    value = float(a.mean() / b.mean()) if len(a) and len(b) else nan
    if min(len(a), len(b)) < ENOUGH:
        return Ratio(value, nan, nan)
    parts = [values.var(ddof=1) / (len(values) * values.mean() ** 2) for values in (a, b)]
    if sum(parts) == 0:
        return Ratio(value, value, value)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (a, b), strict=True))
    half = float(stdtrit(freedom, 0.975)) * sqrt(sum(parts))
    return Ratio(value, value * exp(-half), value * exp(half))


def late_peaks(history: pd.DataFrame) -> list[tuple[int, float]]:
    """(step, height) of every late peak of one run, the height as a multiple of the median.

    A peak is a maximal row of consecutive training intervals of the second half whose highest single step exceeds
    ``PEAK`` times the median of these highest steps.
    """
    peaks: list[tuple[int, float]] = []
    before = False
    for step, height in _heights(history).items():
        above = bool(height > PEAK)
        if above and not before:
            peaks.append((int(step), float(height)))
        elif above and height > peaks[-1][1]:
            peaks[-1] = (int(step), float(height))
        before = above
    return peaks


def highest_step(history: pd.DataFrame) -> float:
    """The highest single step of the second half, in medians of the highest steps of its logging intervals."""
    return float(_heights(history).max())


def _heights(history: pd.DataFrame) -> pd.Series:
    """The highest single step of every logging interval of the second half by step, in medians of them."""
    train = history[history["split"] == "train"]
    half = train[train["step"] > train["step"].max() / 2].set_index("step")["recon_loss_max"]
    return half / half.median()


def burst(history: pd.DataFrame) -> float:
    """How far one step's gradient rises above its neighbours': the greatest ratio, after the first tenth of training,
    of the highest to the mean gradient norm of a logging interval. That cannot exceed the steps of an interval, so NaN
    where these are no more than ``BURST``, and without norms."""
    train = history[history["split"] == "train"]
    if not {"grad_norm", "grad_norm_max"} <= set(history) or not log_interval(train) > BURST:
        return nan
    late = _after_warm_up(history)
    return float((late["grad_norm_max"] / late["grad_norm"]).max())


def numbers_of_log(history: pd.DataFrame) -> dict[str, float | int | None]:
    """Numbers of one run's log, for a text: ``highest_step`` as ``rise``, ``burst``, the greatest gradient norm after
    the first tenth and the median over intervals of its mean, the least and the last validation MSE. ``_step`` is the
    last one of the interval. None where gradients were not logged."""
    heights, late = _heights(history), _after_warm_up(history).set_index("step")
    found = {"rise": highest_step(history), "rise_step": int(heights.idxmax()), "burst": burst(history)}
    norms = late.get("grad_norm_max", pd.Series(dtype=float)).dropna()
    if len(norms):
        found |= {"grad_norm_max": float(norms.max()), "grad_norm_max_step": int(norms.idxmax()),
                  "grad_norm_median": float(late["grad_norm"].median())}  # fmt: skip
    validation = history["recon_loss"][history["split"] == "validation"]
    found |= {"validation_least": float(validation.min()), "validation_end": float(validation.iloc[-1])}
    return {key: None if value != value else value for key, value in found.items()}


def _after_warm_up(history: pd.DataFrame) -> pd.DataFrame:
    """The training rows after the first tenth."""
    train = history[history["split"] == "train"]
    return train[train["step"] > WARM_UP * train["step"].max()]


def end_over_best(history: pd.DataFrame) -> float:
    """The last validation MSE over the least one, whose weights are the ones that are tested."""
    validation = history["recon_loss"][history["split"] == "validation"]
    return float(validation.iloc[-1] / validation.min())


def log_interval(train: pd.DataFrame) -> float:
    """Steps between two training rows of a run."""
    return float(train["step"].diff().median())


def least_used_norm(history: pd.DataFrame) -> float:
    """Least norm of a code in use after the first tenth of training; NaN where it was not logged."""
    if "smallest_used_code_norm" not in history:
        return nan
    return float(_after_warm_up(history)["smallest_used_code_norm"].min())
