"""Nominal rates against the paper's arithmetic, and the quantizer of continuous latents."""

import pytest
import torch

from vqlib.rate import UniformQuantizer, nominal_rate

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


def test_the_quantizer_errs_by_half_a_step_at_most_inside_its_range_and_clips_outside():
    values = torch.linspace(-3, 5, 1001)
    quantizer = UniformQuantizer(values, bits=8)
    assert (quantizer.low, quantizer.high) == (-3, 5)
    assert quantizer.step == pytest.approx(8 / 255)
    error = (quantizer(values) - values).abs()
    assert error.max().item() == pytest.approx(quantizer.step / 2, rel=0.05)
    assert error.max() <= quantizer.step / 2 + 1e-6
    assert len(quantizer(values).unique()) == 256
    assert quantizer(torch.tensor([-100.0, 100.0])).tolist() == [-3, 5]


def test_one_outlier_in_ten_thousand_does_not_set_the_range():
    values = torch.cat([torch.linspace(0, 1, 50_000), torch.tensor([1e9, -1e9])])
    quantizer = UniformQuantizer(values)
    assert -1e-3 < quantizer.low < quantizer.high < 1 + 1e-3


def test_nan_is_kept_and_does_not_count():
    values = torch.tensor([float("nan"), 1.0, 2.0, float("nan")])
    quantizer = UniformQuantizer(values)
    assert (quantizer.low, quantizer.high) == (1, 2)
    assert quantizer(values).isnan().tolist() == [True, False, False, True]
    assert quantizer.indices(values).tolist() == [0, 0, 255, 0]


@pytest.mark.parametrize("values", [torch.full((3,), 4.0), torch.full((3,), float("nan"))], ids=["constant", "none"])
def test_a_range_of_no_width_quantises_all_the_same(values):
    quantised = UniformQuantizer(values)(values)
    assert torch.equal(quantised.nan_to_num(0), values.nan_to_num(0))


def test_huge_tensors_are_thinned_out(monkeypatch):
    monkeypatch.setattr("vqlib.rate.RANGE_VALUES", 100)
    quantizer = UniformQuantizer(torch.linspace(0, 1, 10_000))
    assert quantizer.low == 0
    assert quantizer.high == pytest.approx(1, abs=0.02)


def test_levels_are_stable_under_quantising_twice():
    quantizer = UniformQuantizer(torch.linspace(-1, 2, 777))
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantizer(quantizer(values)), quantizer(values))
    assert torch.equal(quantizer.indices(quantizer(values)), quantizer.indices(values))
