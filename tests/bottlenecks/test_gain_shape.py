"""Gain-shape quantization: choice by |cos|, gains on levels, codes that follow the data and do not die."""

import pytest
import torch
from torch.nn import functional as F

from vqlib.bottlenecks import make_bottleneck
from vqlib.bottlenecks.gain_shape import MovingCodes
from vqlib.quantize import perplexity

K, D, B, H, W = 12, 5, 2, 3, 4


def draw(seed: int = 0, images: int = B) -> torch.Tensor:
    return torch.randn(images, D, H, W, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(**options):
    torch.manual_seed(0)
    return make_bottleneck("gain_shape", num_embeddings=K, embedding_dim=D, **options).double()


def test_shape_and_gain_are_what_a_loop_over_positions_finds():
    bottleneck = made(gain_bits=3).eval()
    z_e = draw()
    z, losses, indices = bottleneck(z_e)
    codes, levels = bottleneck.shapes.codes, bottleneck.levels.codes.flatten()
    expected, negative = torch.empty_like(z), 0
    for b in range(B):
        for i in range(H):
            for j in range(W):
                v = z_e[b, :, i, j]
                shape = max(range(K), key=lambda k: abs(float(v @ codes[k])) / float(codes[k].norm()))
                gain = float(v @ codes[shape])
                level = min(range(8), key=lambda n: abs(float(levels[n]) - gain))
                assert indices[b, i, j].tolist() == [shape, level]
                expected[b, :, i, j] = levels[level] * codes[shape]
                negative += gain < 0
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(losses["commitment_loss"], (z_e - expected).square().mean())
    assert 0 < negative < B * H * W
    assert bottleneck.alphabets == (K, 8)


def test_with_fine_levels_no_other_code_is_nearer():
    """Sabin & Gray: by |cos| first and the gain after it is the nearest of all products."""
    bottleneck = made(gain_bits=10).eval()
    bottleneck.levels.codes.copy_(torch.linspace(-8, 8, 1024, dtype=torch.float64).unsqueeze(1))
    z_e = draw()
    error = (bottleneck(z_e)[0] - z_e).square().sum(dim=1)
    products = bottleneck.levels.codes.view(-1, 1, 1) * bottleneck.shapes.codes  # (1024, K, D)
    every = torch.cdist(z_e.permute(0, 2, 3, 1).reshape(-1, D), products.view(-1, D)).square().min(dim=1).values
    torch.testing.assert_close(error.flatten(), every, rtol=0, atol=2 * (16 / 1023) ** 2)


def test_the_gradient_goes_straight_through_and_codes_get_none():
    bottleneck = made()
    x = draw().requires_grad_()
    z, losses, _ = bottleneck(x)
    weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)
    (gradient,) = torch.autograd.grad((z * weights).sum(), x, retain_graph=True)
    assert torch.equal(gradient, weights)
    (commitment,) = torch.autograd.grad(losses["commitment_loss"], x)
    torch.testing.assert_close(commitment, 2 * (x - z).detach() / x.numel())
    assert not list(bottleneck.parameters())


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_vanishing_and_huge_latents_stay_finite(scale):
    bottleneck = made()
    for seed in range(3):
        x = (draw(seed) * scale).requires_grad_()
        z, losses, _ = bottleneck(x)
        (gradient,) = torch.autograd.grad(z.sum(), x)
        assert z.isfinite().all()
        assert gradient.isfinite().all()
        assert losses["commitment_loss"].isfinite()
    assert all(value.isfinite().all() for value in bottleneck.state_dict().values())
    torch.testing.assert_close(bottleneck.shapes.codes.norm(dim=1), torch.ones(K, dtype=torch.float64))


@pytest.mark.parametrize("unit", [True, False])
def test_codes_are_the_moving_averages_of_what_chose_them(unit):
    torch.manual_seed(0)
    codes = MovingCodes(4, 3, decay=0.75, revive_below=0.0, unit=unit).double()
    start = codes.codes.clone()
    generator = torch.Generator().manual_seed(1)
    sums, counts = torch.zeros(4, 3, dtype=torch.float64), [0.0] * 4
    for _ in range(3):
        indices = torch.randint(3, (2, 2, 5), generator=generator)  # the last code is never chosen
        vectors = torch.randn(2, 3, 2, 5, generator=generator, dtype=torch.float64)
        codes.update(indices, vectors)
        sums *= 0.75
        counts = [0.75 * count for count in counts]
        for b, i, j in torch.cartesian_prod(*map(torch.arange, indices.shape)).tolist():
            sums[indices[b, i, j]] += 0.25 * vectors[b, :, i, j]
            counts[int(indices[b, i, j])] += 0.25
    for code in range(3):
        mean = sums[code] / counts[code]
        torch.testing.assert_close(codes.codes[code], mean / mean.norm() if unit else mean)
    assert torch.equal(codes.codes[3], start[3])


def test_a_dead_code_takes_half_of_the_most_chosen_one():
    torch.manual_seed(0)
    codes = MovingCodes(4, 3, decay=0.5, revive_below=0.5, unit=True).double()
    vectors = torch.zeros(1, 3, 1, 10, dtype=torch.float64)
    vectors[:, 0] = 1
    vectors[:, 1, :, 5:8] = 1
    indices = torch.tensor([[[0] * 5 + [2] * 3 + [1] * 2]])  # 3 is dead; 1 has 2 of 10, no less than half of 10 / 4
    codes.update(indices, vectors)
    assert codes.counts.tolist() == [1.25, 1.0, 1.5, 1.25]
    torch.testing.assert_close(codes.codes.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert 0 < (codes.codes[3] - codes.codes[0]).norm() < 0.1
    torch.testing.assert_close(codes.sums[3], codes.codes[3] * codes.sums[0].norm())


def test_from_any_start_all_codes_and_levels_come_into_use():
    """Latents of many clusters, far from where random codes lie: at first one or two codes take everything."""
    directions = torch.randn(40, D, generator=torch.Generator().manual_seed(5)) + 3
    torch.manual_seed(0)
    bottleneck = make_bottleneck("gain_shape", num_embeddings=32, embedding_dim=D, gain_bits=4)

    def latents(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        chosen = directions[torch.randint(40, (8, 6, 6), generator=generator)].permute(0, 3, 1, 2)
        return chosen * (1 + torch.rand(8, 1, 6, 6, generator=generator))

    def used() -> tuple[float, float, float]:
        z, _, indices = bottleneck.eval()(latents(1000))
        shares = [perplexity(torch.bincount(symbol.flatten())).item() for symbol in indices.unbind(-1)]
        return *shares, (F.mse_loss(z, latents(1000)) / latents(1000).square().mean()).item()

    assert used()[0] < 10
    for seed in range(150):
        bottleneck.train()(latents(seed))
    shapes, levels, error = used()
    assert shapes > 20
    assert levels > 10
    assert error < 0.02


def test_gains_follow_the_scale_of_the_latents():
    bottleneck = made(gain_bits=4, decay=0.8)
    errors = []
    for scale in (1.0, 100.0):
        for seed in range(60):
            bottleneck.train()(draw(seed, images=16) * scale)
        errors.append((bottleneck.eval()(draw(99, images=16) * scale)[1]["commitment_loss"] / scale**2).item())
    assert errors[1] == pytest.approx(errors[0], rel=0.3)


def test_draws_come_from_torchs_generator():
    states = []
    for seed in (3, 3, 4):
        bottleneck = made()
        torch.manual_seed(seed)
        bottleneck(draw())
        states.append(bottleneck.shapes.codes)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_bits_out_of_range_are_refused():
    with pytest.raises(ValueError, match="gain_bits is 0; it must be from 1 to 12"):
        make_bottleneck("gain_shape", num_embeddings=K, embedding_dim=D, gain_bits=0)
