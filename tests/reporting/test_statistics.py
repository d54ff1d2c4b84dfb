"""Intervals and tests against cases computed by hand, simulation and counting."""

import itertools

import numpy as np
import pandas as pd
import pytest

from vqlib.reporting.claims_training import fisher_greater
from vqlib.reporting.statistics import burst, late_peaks, least_used_norm, ratio


def test_the_interval_of_a_ratio_is_that_of_simulated_seeds():
    """Ratios of means of three seeds each lie inside their own interval about as often as it says."""
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        found = ratio(draw.normal(0.5, 0.01, 3), draw.normal(1.0, 0.02, 3))
        hits += found.low <= 0.5 <= found.high
    assert 0.93 < hits / 2000 < 0.985  # Welch's interval errs on the safe side with so few


def test_a_ratio_by_hand():
    found = ratio([1.0, 2.0, 3.0], [4.0, 4.0, 4.0])
    assert found.value == 0.5
    half = 4.30265 * np.sqrt(1 / (3 * 2**2))  # t with two degrees of freedom, only one side scatters
    assert (found.low, found.high) == pytest.approx((0.5 * np.exp(-half), 0.5 * np.exp(half)), rel=1e-4)
    assert np.isnan(ratio([1.0, 1.0], [2.0, 3.0, 4.0]).low) and ratio([1.0], [2.0]).value == 0.5
    assert np.isnan(ratio([], [2.0]).value)
    assert ratio([2.0] * 3, [1.0] * 3).high == 2


def test_fisher_by_counting():
    """Two marked runs among five: all ways to mark two of five, and how many put both into the first group of two."""
    ways = list(itertools.combinations(range(5), 2))
    assert fisher_greater(2, 2, 0, 3) == pytest.approx(sum(set(way) == {0, 1} for way in ways) / len(ways))
    assert fisher_greater(5, 5, 0, 0) == 1


def log(maxima: list[float], **columns) -> pd.DataFrame:
    count = len(maxima)
    return pd.DataFrame({"split": "train", "step": np.arange(1, count + 1) * 25, "recon_loss": 1.0,
                         "recon_loss_max": maxima, **columns})  # fmt: skip


def test_peaks_are_counted_in_the_second_half_alone_and_once_each():
    quiet = [1.2] * 10
    assert late_peaks(log([9.0] * 10 + quiet)) == []  # of step 250, where the half begins, and before
    assert late_peaks(log([*quiet, 1.2, 5, 6, 1.2, 1.2, 4, 1.2, 1.2, 1.2, 3.5])) == [
        (325, pytest.approx(5.0)),
        (400, pytest.approx(4 / 1.2)),
    ]
    assert late_peaks(log(quiet + [1.2] * 9 + [3.7])) == [(500, pytest.approx(3.7 / 1.2))]
    validation = log([99.0] * 20).assign(split="validation")
    assert late_peaks(pd.concat([log([1.2] * 20), validation])) == []


def test_a_model_whose_ordinary_batches_scatter_has_no_peaks():
    """Identity's error is so small that single batches reach several times its mean."""
    assert late_peaks(log([3.4, 4.2, 3.8, 4.4] * 5)) == []


def test_a_burst_is_within_a_logging_interval_and_after_the_first_tenth():
    norms = np.geomspace(100, 1, 20)
    assert burst(log([1.0] * 20, grad_norm=norms, grad_norm_max=2 * norms)) == pytest.approx(2)
    high = 2 * norms
    high[0] *= 50
    assert burst(log([1.0] * 20, grad_norm=norms, grad_norm_max=high)) == pytest.approx(2)
    high[10] *= 10
    assert burst(log([1.0] * 20, grad_norm=norms, grad_norm_max=high)) == pytest.approx(20)
    assert np.isnan(burst(log([1.0] * 20)))
    often = log([1.0] * 20, grad_norm=norms, grad_norm_max=high).assign(step=range(10, 210, 10))
    one = log([1.0] * 20, grad_norm=norms, grad_norm_max=2 * norms).tail(1)
    assert np.isnan(burst(one))  # of which no interval is known
    assert np.isnan(burst(often))  # of 10 steps none can exceed 10 times their mean
    assert least_used_norm(log([1.0] * 20, smallest_used_code_norm=norms)) == pytest.approx(1)
    assert np.isnan(least_used_norm(log([1.0] * 20)))
