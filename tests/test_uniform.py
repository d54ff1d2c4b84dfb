"""The quantizer of continuous latents."""

import pytest
import torch

from vqlib.uniform import UniformQuantizer


def test_the_quantizer_errs_by_half_a_step_at_most_inside_its_range_and_clips_outside():
    values = torch.linspace(-3, 5, 1001)
    quantizer = UniformQuantizer(values, bits=8)
    assert quantizer.low == pytest.approx(-3, abs=0.01)  # a tail of a thousandth may be cut off
    assert quantizer.high == pytest.approx(5, abs=0.01)
    assert quantizer.step == pytest.approx(8 / 255, rel=3e-3)
    error = (quantizer(values) - values).abs()
    assert error.max().item() == pytest.approx(quantizer.step / 2, rel=0.05)
    assert error.max() <= quantizer.step / 2 + 1e-6
    assert len(quantizer(values).unique()) == 256
    assert quantizer(torch.tensor([-100.0, 100.0])).tolist() == pytest.approx(
        [float(quantizer.low), float(quantizer.high)]
    )


def test_one_outlier_in_ten_thousand_does_not_set_the_range():
    values = torch.cat([torch.linspace(0, 1, 50_000), torch.tensor([1e9, -1e9])])
    quantizer = UniformQuantizer(values, 8)
    assert -1e-3 < quantizer.low < quantizer.high < 1 + 1e-3


def test_nan_is_kept_and_does_not_count():
    values = torch.tensor([float("nan"), 1.0, 2.0, float("nan")])
    quantizer = UniformQuantizer(values, 8)
    assert (quantizer.low, quantizer.high) == (1, 2)
    assert quantizer(values).isnan().tolist() == [True, False, False, True]
    assert quantizer.indices(values).tolist() == [0, 0, 255, 0]


@pytest.mark.parametrize("values", [torch.full((3,), 4.0), torch.full((3,), float("nan"))], ids=["constant", "none"])
def test_a_range_of_no_width_quantises_all_the_same(values):
    quantised = UniformQuantizer(values, 8)(values)
    assert torch.equal(quantised.nan_to_num(0), values.nan_to_num(0))


def test_huge_tensors_are_thinned_out(monkeypatch):
    monkeypatch.setattr("vqlib.uniform.RANGE_VALUES", 100)
    quantizer = UniformQuantizer(torch.linspace(0, 1, 10_000), 8)
    assert quantizer.low == 0
    assert quantizer.high == pytest.approx(1, abs=0.02)


def test_levels_are_stable_under_quantising_twice():
    quantizer = UniformQuantizer(torch.linspace(-1, 2, 777), 8)
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantizer(quantizer(values)), quantizer(values))
    assert torch.equal(quantizer.indices(quantizer(values)), quantizer.indices(values))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_each_channel_has_the_range_that_suits_it(bits):
    scale = torch.tensor([0.01, 1.0, 100.0]).view(3, 1)
    values = torch.randn(400, 3, 5, generator=torch.Generator().manual_seed(0)) * scale + 3 * scale
    apart, together = UniformQuantizer(values, bits, axis=1), UniformQuantizer(values, bits)
    assert (apart.groups, together.groups) == (3, 1)
    for channel in range(3):
        alone = UniformQuantizer(values[:, channel], bits)
        assert torch.equal(alone(values[:, channel]), apart(values)[:, channel])
    error = [((one(values) - values) / scale).square().mean() for one in (apart, together)]
    assert error[0] < error[1] / 10


def test_few_levels_have_a_narrower_range_that_errs_less():
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    fine, coarse = UniformQuantizer(values, 8), UniformQuantizer(values, 2)
    assert fine.step * 255 > 6  # +-3.7 standard deviations but for a tail
    assert 2.5 < coarse.step * 3 < 3.5  # Max 1960: four equidistant levels of least error span 2.99
    assert (coarse(values) - values).square().mean() == pytest.approx(0.1188, rel=0.03)  # his least error


def test_a_channel_that_stores_nothing_has_some_range():
    values = torch.full((4, 2, 3), float("nan"))
    values[:, 1] = torch.arange(12.0).view(4, 3)
    quantizer = UniformQuantizer(values, 4, axis=1)
    assert quantizer(values)[:, 0].isnan().all()
    assert (quantizer(values)[:, 1] - values[:, 1]).abs().max() <= quantizer.step[1] / 2 + 1e-6
