"""BD-rate against cases that can be computed by hand."""

import numpy as np
import pytest

from vqlib.bjontegaard import bd_rate, frontier

STRAIGHT = [(0.1, 20.0), (1.0, 30.0), (10.0, 40.0)]  # log10 of the rate is a straight line: PSNR / 10 - 3


def test_half_the_rate_at_every_psnr_is_minus_50_percent():
    percent, reason = bd_rate(STRAIGHT, [(rate / 2, psnr) for rate, psnr in STRAIGHT])
    assert percent == pytest.approx(-50)
    assert reason is None
    assert bd_rate(STRAIGHT, [(rate * 3, psnr) for rate, psnr in STRAIGHT])[0] == pytest.approx(200)
    assert bd_rate(STRAIGHT, STRAIGHT)[0] == pytest.approx(0, abs=1e-9)


def test_a_hand_computed_case_over_the_psnr_that_both_reach():
    """By hand: the other line is log10 rate = (PSNR - 25) / 20 - 1. Over 25..40 dB the difference of the two,
    (PSNR - 25) / 20 - 1 - PSNR / 10 + 3 = 0.75 - PSNR / 20, is -0.5 at 25 and -1.25 at 40, so -0.875 in the mean:
    10 ** -0.875 - 1 = -86.66 %."""
    other = [(10 ** ((psnr - 25) / 20 - 1), psnr) for psnr in (25.0, 33.0, 45.0)]
    assert bd_rate(STRAIGHT, other)[0] == pytest.approx(100 * (10**-0.875 - 1), rel=1e-9)
    assert bd_rate(other, STRAIGHT)[0] == pytest.approx(100 * (10**0.875 - 1), rel=1e-9)


def test_curved_curves_agree_with_the_integral_of_their_interpolant():
    """The value that the package bjontegaard 1.3.0 gives with method "pchip"."""
    anchor = [(0.1, 20), (0.3, 23.1), (0.8, 26), (2, 30)]
    other = [(0.12, 21), (0.25, 23.5), (0.7, 26.6), (1.5, 29)]
    assert bd_rate(anchor, other)[0] == pytest.approx(-24.154922720549642, rel=1e-9)


@pytest.mark.parametrize(
    ("anchor", "points", "reason"),
    [
        ([(0.5, 20)], STRAIGHT, "the anchor has 1 point of use; a curve needs two"),
        (STRAIGHT, [], "the curve has 0 points of use; a curve needs two"),
        (STRAIGHT, [(1, 50), (2, 60)], "no PSNR in common: 20 to 40 dB and 50 to 60 dB"),
        (STRAIGHT, [(1, 25), (2, 24)], "the curve has 1 point of use; a curve needs two"),
        (STRAIGHT, [(None, 25), (2, float("nan")), (0, 24)], "the curve has 0 points of use; a curve needs two"),
    ],
)
def test_where_there_is_no_number_there_is_a_reason(anchor, points, reason):
    assert bd_rate(anchor, points) == (None, reason)


def test_points_that_a_cheaper_one_beats_are_left_out():
    kept = frontier([(1, 25), (0.5, 20), (2, 24.9), (3, 25), (4, 26), (4, 25.5)])
    assert np.array_equal(kept, [(0.5, 20), (1, 25), (4, 26)])


def test_curves_must_have_so_many_decibels_in_common():
    other = [(rate, psnr + 1) for rate, psnr in STRAIGHT]
    common = STRAIGHT[-1][1] - STRAIGHT[0][1] - 1
    assert bd_rate(STRAIGHT, other, at_least=common)[0] is not None
    assert bd_rate(STRAIGHT, other, at_least=common + 0.5) == (
        None,
        f"{common:.2f} dB in common: less than {common + 0.5:g} dB",
    )
