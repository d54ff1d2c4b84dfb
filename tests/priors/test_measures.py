"""Two-sample measures against what is known of them, and FID with a network of our own."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from vqlib.errors import DataError
from vqlib.perceptual import WEIGHTS
from vqlib.priors.fid import fid, what_is_missing
from vqlib.priors.latents import Latents, Layout
from vqlib.priors.measures import code_pairs, most_shared_codes, nearest_images, sliced_wasserstein
from vqlib.priors.naive import naive_sample, order0_bits, order0_reals
from vqlib.uniform import UniformQuantizer


def images(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 0.3 + shift


def test_sliced_wasserstein_of_a_shift_is_its_projection():
    """A constant added to every pixel moves each projection by (sum of the direction) times it."""
    x = images(40, 0)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(192, 256, generator=generator, dtype=torch.float64)
    sums = (directions / directions.norm(dim=0)).sum(dim=0).abs()
    assert sliced_wasserstein(x, x + 0.25) == pytest.approx(0.25 * float(sums.mean()), rel=1e-5)
    assert sliced_wasserstein(x, x.flip(0)) == 0  # the same set in another order


def test_sliced_wasserstein_is_the_mean_of_exact_distances():
    a, b = images(30, 0), images(30, 1, 0.1)
    rows = [torch.nn.functional.avg_pool2d(part, 2).flatten(1).double() for part in (a, b)]
    directions = torch.randn(192, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions /= directions.norm(dim=0)
    exact = [wasserstein_distance(*(part @ directions[:, n] for part in rows)) for n in range(256)]
    assert sliced_wasserstein(a, b) == pytest.approx(sum(exact) / 256, rel=1e-9)
    assert sliced_wasserstein(a, images(30, 2)) < sliced_wasserstein(a, images(30, 2, 0.3))


def test_code_pairs_by_hand():
    one = torch.tensor([[[0, 0], [0, 0]]])  # pairs: across 00 00, down 00 00
    two = torch.tensor([[[0, 1], [0, 1]]])  # across 01 01, down 00 11
    assert code_pairs(one, one) == 0
    assert code_pairs(one, two) == pytest.approx(0.75)
    assert code_pairs(one, torch.full((1, 2, 2), 3)) == 1
    assert code_pairs(one.expand(5, -1, -1), one) == 0


def test_pairs_see_order_that_single_codes_do_not():
    draw = torch.Generator().manual_seed(0)
    stripes = torch.randint(2, (200, 6, 1), generator=draw).expand(-1, -1, 6)
    noise = torch.randint(2, (200, 6, 6), generator=draw)
    assert code_pairs(stripes, noise) > 0.2
    assert abs(float(stripes.double().mean() - noise.double().mean())) < 0.05


def test_the_nearest_image_is_found_across_batches():
    pool = images(30, 0)
    index, error = nearest_images(pool[[17, 3]] + 0.01, pool.split(7))
    assert index.tolist() == [17, 3]
    assert torch.allclose(error, torch.full((2,), 1e-4), rtol=1e-2)


def test_shared_codes_are_those_of_the_best_training_image():
    pool = torch.tensor([[[1, 2], [3, 4]], [[1, 1], [1, 1]]])
    assert most_shared_codes(torch.tensor([[[1, 2], [3, 9]], [[8, 8], [8, 1]]]), pool).tolist() == [0.75, 0.25]


def test_naive_samples_have_the_marginals_and_no_order():
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(4, (300, 8, 1), generator=draw)
    symbols = torch.minimum(rows, torch.tensor(2)).expand(-1, -1, 8)[..., None].contiguous()
    reals = 10.0 * symbols.permute(0, 3, 1, 2) + torch.randn(300, 1, 8, 8, generator=draw)
    drawn, numbers = naive_sample(Latents(symbols, reals, torch.zeros(300)), 400, draw)
    assert drawn.shape == (400, 8, 8, 1)
    share = torch.bincount(drawn.flatten(), minlength=3) / drawn.numel()
    assert torch.allclose(share, torch.tensor([0.25, 0.25, 0.5]), atol=0.02)
    assert (drawn[:, :, 1:] == drawn[:, :, :-1]).float().mean() < 0.45  # in the images: always
    assert numbers.mean().item() == pytest.approx(reals.mean().item(), abs=0.2)
    assert torch.isin(numbers, reals).all()


def entropy_of(counts) -> float:
    share = torch.tensor(list(counts), dtype=torch.float64) / sum(counts)
    return float(-(share * share.log2()).sum())


def test_naive_symbols_of_one_position_are_drawn_together():
    first = torch.randint(4, (50, 3, 3), generator=torch.Generator().manual_seed(0))
    symbols = torch.stack([first, 3 - first], dim=-1)
    drawn, _ = naive_sample(Latents(symbols, None, torch.zeros(50)), 100, torch.Generator().manual_seed(1))
    assert torch.equal(drawn[..., 1], 3 - drawn[..., 0])
    assert len(drawn[..., 0].unique()) == 4


def test_order0_bits_of_several_symbols_sum_to_the_entropy_of_the_joint_histogram():
    draw = torch.Generator().manual_seed(0)
    first = torch.randint(3, (40, 2, 3), generator=draw)
    second = (first + (torch.rand(40, 2, 3, generator=draw) < 0.2)) % 3
    third = torch.randint(2, (40, 2, 3), generator=draw)
    symbols = torch.stack([first, second, third], dim=-1)
    told = order0_bits(symbols, Layout((3, 3, 2), (2, 3), 0, False))
    every = [tuple(row) for row in symbols.flatten(0, 2).tolist()]
    expected = [entropy_of(Counter(row[:n] for row in every).values()) for n in (1, 2, 3)]
    assert [sum(told[:n]) for n in (1, 2, 3)] == pytest.approx(expected)
    alone = entropy_of(Counter(row[1] for row in every).values())
    assert told[1] < alone - 0.5


@pytest.mark.parametrize("by_row", [False, True])
def test_order0_reals_have_a_gaussian_and_a_histogram_for_every_channel(by_row):
    """By brute force; scales differ by 100, which one histogram of all channels would pay for."""
    draw, scale = torch.Generator().manual_seed(0), torch.tensor([0.1, 1.0, 10.0]).view(3, 1, 1)
    train, test = (torch.randn(60, 3, 2, 1 if by_row else 4, generator=draw) * scale + 5 * scale for _ in range(2))
    test[:10, :, 0, 0] = torch.nan
    symbols = torch.zeros(60, 2, 4, 1, dtype=torch.int64)
    latents = [Latents(symbols, reals, torch.zeros(60)) for reals in (train, test)]
    quantizer = UniformQuantizer(train, 3, axis=1)
    told = order0_reals(*latents, quantizer)
    nats, bits, count = 0.0, 0.0, 0
    for channel in range(3):
        values = test[:, channel][~torch.isnan(test[:, channel])].double()
        kept = train[:, channel].double()
        nats -= float(torch.distributions.Normal(kept.mean(), kept.std(correction=0)).log_prob(values).sum())
        levels = quantizer.indices(test)[:, channel][~torch.isnan(test[:, channel])]
        bits += entropy_of(Counter(levels.tolist()).values()) * len(levels)
        count += len(levels)
    assert told["nats"] == pytest.approx(nats / count)
    assert told["bits"] == pytest.approx(nats / count / np.log(2))
    assert told["level_bits"] == pytest.approx(bits / count)


def test_order0_bits_of_each_symbol():
    """Two that are independent, four of each pair."""
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(2)).repeat(2, 1)
    symbols = pairs.view(4, 2, 2, 2)
    assert order0_bits(symbols, Layout((4, 8), (2, 2), 0, False)) == pytest.approx([2.0, 1.0])


class Means(torch.nn.Module):
    """Features for FID: the mean of every colour, on [0, 255]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double().mean(dim=(2, 3))


def test_fid_of_known_gaussians():
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); here the sets differ by a shift alone."""
    x = images(300, 0).clamp(-0.8, 0.5)
    assert fid(x, x, torch.device("cpu"), Means()) == pytest.approx(0, abs=1e-3)
    shifted = fid(x, x + 20 / 127.5, torch.device("cpu"), Means())
    assert shifted == pytest.approx(3 * 20**2, rel=1e-3)


def test_without_the_weights_fid_says_what_is_missing_and_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv("VQLIB_WEIGHTS", str(tmp_path))
    line = what_is_missing()
    assert WEIGHTS["rfid"] in line
    assert "VQLIB_WEIGHTS" in line
    assert "\n" not in line
    (tmp_path / WEIGHTS["rfid"]).write_bytes(b"half of it")
    assert what_is_missing() is None
    with pytest.raises(DataError, match="not the weights for rfid, or damaged"):
        fid(images(2, 0), images(2, 1), torch.device("cpu"))
