"""Nominal rates against the paper's arithmetic, entropies against counting, and what a result says of symbols."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from latents import D, H, W, alphabets, draw

from vqlib.bitstream import Codec
from vqlib.rate import PRECISIONS, Bill, describe_symbols, nominal_rate, shown_ranks
from vqlib.tables import Counts, cross_entropy, entropy, smoothed
from vqlib.uniform import UniformQuantizer

K512 = (512,)


def test_a_vqvae_at_f4_costs_9_bits_for_16_pixels():
    rate = nominal_rate(K512, positions=8 * 8, reals=0, pixels=32 * 32)
    assert rate == {"bpp_codes": 0.5625, "bpp_32bit": 0.5625, "bpp_8bit": 0.5625}
    assert nominal_rate(K512, 32 * 32, 0, 128 * 128)["bpp_codes"] == 0.5625  # whatever the image's size


def test_one_gain_per_position_costs_its_bits_over_16():
    rate = nominal_rate(K512, positions=64, reals=64, pixels=1024)
    assert rate == {"bpp_codes": 0.5625, "bpp_32bit": (9 + 32) / 16, "bpp_8bit": (9 + 8) / 16}


def test_one_gain_per_channel_and_row_costs_as_much_as_the_image():
    rate = nominal_rate(K512, positions=64, reals=256 * 8, pixels=1024)
    assert round(rate["bpp_8bit"], 1) == 16.6
    assert round(rate["bpp_32bit"], 1) == 64.6


def test_without_codes_only_real_numbers_cost():
    assert nominal_rate((), positions=0, reals=256 * 64, pixels=1024) == {
        "bpp_codes": None,
        "bpp_32bit": 512.0,
        "bpp_8bit": 128.0,
    }


def test_symbols_of_a_position_add_up_and_odd_alphabets_are_rounded_up():
    assert nominal_rate((512, 16), 64, 0, 1024)["bpp_codes"] == 13 / 16
    assert nominal_rate((500,), 64, 0, 1024)["bpp_codes"] == 9 / 16


def test_a_mask_is_counted_beside_the_numbers():
    rate = nominal_rate(K512, positions=64, reals=16 * 100, pixels=1024, mask=64)
    assert rate["bpp_codes"] == 9 / 16
    assert rate["bpp_8bit"] == (9 + 1) / 16 + 8 * 1600 / 1024


def test_entropy_is_that_of_a_brute_force_count():
    symbols = np.random.default_rng(0).geometric(0.1, 5000) % 40
    counts = np.bincount(symbols, minlength=64)
    shares = [n / len(symbols) for n in Counter(symbols.tolist()).values()]
    assert entropy(counts) == pytest.approx(-sum(p * math.log2(p) for p in shares), rel=1e-12)
    assert entropy(np.array([0, 7, 0])) == entropy(np.zeros(5, int)) == 0
    assert entropy(np.full(512, 3)) == pytest.approx(9)


def test_no_symbol_has_zero_mass_and_no_table_beats_the_entropy():
    seen, met = np.array([0, 90, 10]), np.array([5, 50, 45])
    table = smoothed(seen)
    np.testing.assert_allclose(table, [0.5 / 101.5, 90.5 / 101.5, 10.5 / 101.5])
    assert cross_entropy(met, table) > 100 * entropy(met)
    assert cross_entropy(met, met / 100) == pytest.approx(100 * entropy(met))


def bill_of(kind: str, images: int = 60) -> Bill:
    indices, continuous = draw(kind, images, seed=3)
    quantizers = {} if continuous is None else {bits: UniformQuantizer(continuous, bits) for bits in PRECISIONS}
    counts = Counts(alphabets(indices), quantizers)
    counts.add(indices, continuous)
    bill = Bill(alphabets(indices), Codec(counts, indices, continuous))
    for half in (slice(0, 25), slice(25, None)):
        bill.add(*(None if whole is None else whole[half] for whole in (indices, continuous)))
    return bill


def test_a_bill_of_codes_alone_has_one_point():
    indices, _ = draw("two", 60, seed=3)
    rates = bill_of("two").rates(pixels=560)
    expected = 0.0
    for symbols in indices.unbind(-1):
        shares = [n / symbols.numel() for n in Counter(symbols.flatten().tolist()).values()]
        expected -= sum(p * math.log2(p) for p in shares)
    assert rates["bpp_codes"] == H * W * (6 + 4) / 560
    assert rates["bpp_entropy"] == pytest.approx(H * W * expected / 560)
    assert rates["bpp_entropy"] < rates["bpp_cross_entropy"] < rates["bpp_bitstream"]
    assert rates["bpp_bitstream"] < 1.02 * rates["bpp_cross_entropy"]
    assert rates["precisions"] == []
    assert (rates["continuous_fraction"], rates["numbers_per_image"], rates["bpp_mask"]) == (0, 0, None)


@pytest.mark.parametrize(
    ("kind", "numbers", "mask"),
    [("code+gain", H * W, 0), ("code+row", D * H, 0), ("none+vector", D * H * W, 0),
     ("code+vector of rare codes", None, 0), ("code+vector anywhere", None, H * W),
     ("none+vector anywhere", None, H * W), ("none+element anywhere", None, D * H * W)],
)  # fmt: skip
def test_every_precision_is_counted(kind, numbers, mask):
    """A mask that is no function of the code costs a bit for every entry, nominally."""
    _, continuous = draw(kind, 60, seed=3)
    stored = float((~continuous.isnan()).sum()) / 60
    rates = bill_of(kind).rates(pixels=560)
    codes = 0 if kind.startswith("none") else H * W * 6
    assert rates["numbers_per_image"] == stored == pytest.approx(numbers or stored)
    assert rates["continuous_fraction"] == pytest.approx(stored / continuous[0].numel())
    assert [row["bits"] for row in rates["precisions"]] == [2, 4, 6, 8, 32]
    for row in rates["precisions"]:
        assert row["bpp_nominal"] == pytest.approx((codes + mask + row["bits"] * stored) / 560)
        assert row["bpp_bitstream"] < (row["bpp_nominal"] * 560 + 6) / 560
    by_bits = {row["bits"]: row["bpp_nominal"] for row in rates["precisions"]}
    assert (rates["bpp_8bit"], rates["bpp_32bit"]) == pytest.approx((by_bits[8], by_bits[32]))


@pytest.mark.parametrize("written", [1, 0])
def test_a_mask_that_a_symbol_spells_out_is_not_counted_again(written):
    """As in ``frequency_released``: the second symbol says what is continuous. Without it there is a mask."""
    draws = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 20, (60, H, W), generator=draws)
    stored = torch.rand(60, H, W, generator=draws) < 0.3  # of every code some
    numbers = torch.randn(60, D, H, W, generator=draws).masked_fill(~stored.unsqueeze(1), torch.nan)
    indices = torch.stack([codes, stored.long()], dim=-1) if written else codes
    sizes = (20, 2) if written else (20,)
    counts = Counts(sizes, {8: UniformQuantizer(numbers, 8)})
    counts.add(indices, numbers)
    bill = Bill(sizes, Codec(counts, indices, numbers))
    bill.add(indices, numbers)
    rates = bill.rates(pixels=560)
    assert rates["bpp_8bit"] == pytest.approx((H * W * 6 + 8 * float(stored.sum()) * D / 60) / 560)
    assert (rates["bpp_mask"] * 560 * 60 < 10) == bool(written)


def test_symbols_are_described_in_small():
    counts = np.random.default_rng(0).integers(0, 50, 8192)
    counts[100:200] = 0
    (big,) = describe_symbols([counts])
    assert len(big["ranks"]) == len(big["shares"]) <= 128
    assert (big["ranks"][0], big["ranks"][-1]) == (1, 8192)
    order = sorted(counts.tolist(), reverse=True)
    assert big["shares"] == [order[rank - 1] / sum(order) for rank in big["ranks"]]
    assert big["levels"] is None
    assert big["codebook_usage"] == (counts > 0).sum() / 8192
    assert math.log2(big["perplexity"]) == pytest.approx(big["entropy_bits"]) == pytest.approx(entropy(counts))
    gains = np.array([1, 0, 5, 2])
    (small,) = describe_symbols([gains])
    assert small["levels"] == [0.125, 0, 0.625, 0.25]
    assert (small["ranks"], small["shares"]) == ([1, 2, 3, 4], [0.625, 0.25, 0.125, 0])
    assert (small["alphabet"], small["nominal_bits"]) == (4, 2)
    assert shown_ranks(128).tolist() == list(range(1, 129))
