"""Frequency (as described, as released) and combined: which positions are continuous, since when, limits in S."""

import pytest
import torch
from torch.nn import functional as F

from vqlib.bottlenecks import make_bottleneck
from vqlib.bottlenecks._frequency import most_frequent

K, D, B, H, W = 16, 6, 2, 3, 5
TABLED = ["frequency", "combined"]


def draw(seed: int = 0) -> torch.Tensor:
    """Latents about as long as codes of ``made``, so that many of them are chosen."""
    return torch.randn(B, D, H, W, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(name: str, num_frequent: int | None = None, steps: int = 0, **options):
    """A float64 bottleneck of K codes drawn as latents are; ``begin`` has been told of ``steps`` steps."""
    torch.manual_seed(0)
    extra = {} if num_frequent is None else {"num_frequent": num_frequent}
    bottleneck = make_bottleneck(name, num_embeddings=K, embedding_dim=D, **extra, **options).double()
    bottleneck.codebook.data = torch.randn(K, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    if extra:
        bottleneck.begin(steps)
    return bottleneck


def outcome(bottleneck, z_e: torch.Tensor):
    """z, losses, indices, and the gradients of a sum that weighs every element and every loss differently."""
    x = z_e.clone().requires_grad_()
    z, losses, indices = bottleneck(x)
    weighed = (z * torch.linspace(-1, 2, z.numel(), dtype=z.dtype).view_as(z)).sum()
    total = weighed + sum((place + 2) * losses[name] for place, name in enumerate(sorted(losses)))
    return z, losses, indices, torch.autograd.grad(total, [x, bottleneck.codebook])


def assert_equal_to_the_bit(found, expected):
    for a, b in zip((found[0], found[2], *found[3]), (expected[0], expected[2], *expected[3]), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(found[1][name], expected[1][name]) for name in expected[1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TABLED)
def test_with_all_codes_frequent_it_is_vq_to_the_bit(name, training):
    found = outcome(made(name, K).train(training), draw())
    assert_equal_to_the_bit(found, outcome(made("vq").train(training), draw()))
    assert found[1].get("projection_loss", 0) == 0


@pytest.mark.parametrize("training", [True, False])
def test_with_all_codes_frequent_the_released_one_is_vq_to_the_bit(training):
    z, losses, symbols, gradients = outcome(made("frequency_released", K).train(training), draw())
    assert not symbols[..., 1].any()
    assert_equal_to_the_bit((z, losses, symbols[..., 0], gradients), outcome(made("vq").train(training), draw()))


@pytest.mark.parametrize("name", ["frequency", "frequency_released"])
def test_with_no_code_frequent_the_decoder_sees_z_e(name):
    z, losses, _, (gradient, _) = outcome(made(name, 0), draw())
    assert torch.equal(z, draw())
    _, expected, _, (through, _) = outcome(made("vq"), draw())
    assert losses == expected  # codebook and commitment losses stay
    assert torch.equal(gradient, through)


@pytest.mark.parametrize("options", [{}, {"detach_code": True}, {"guard": 0.5}])
def test_with_no_code_frequent_combined_is_projected_to_the_bit(options):
    assert_equal_to_the_bit(
        outcome(made("combined", 0, **options), draw()), outcome(made("projected", **options), draw())
    )


@pytest.mark.parametrize("name", TABLED)
def test_the_mask_is_what_a_loop_over_positions_finds(name):
    bottleneck = made(name, 5, decay=0.75)
    table = [0.0] * K
    for seed in range(1, 5):
        indices = bottleneck(draw(seed))[2]
        for code in range(K):
            share = sum(int(i) == code for i in indices.flatten()) / indices.numel()
            table[code] = 0.75 * table[code] + 0.25 * share
    torch.testing.assert_close(bottleneck.table, torch.tensor(table, dtype=torch.float64))

    kept = sorted(range(K), key=lambda code: (-table[code], code))[:5]
    z_e = draw(8)
    z, losses, indices = bottleneck.eval()(z_e)
    expected, compared = torch.empty_like(z), torch.empty_like(z)
    for b in range(B):
        for i in range(H):
            for j in range(W):
                v, c = z_e[b, :, i, j], bottleneck.codebook.detach()[indices[b, i, j]]
                rest = v if name == "frequency" else (v @ c) / (c @ c) * c
                discrete = int(indices[b, i, j]) in kept
                expected[b, :, i, j] = c if discrete else rest
                compared[b, :, i, j] = torch.zeros(D) if discrete else rest - c
    torch.testing.assert_close(z, expected)
    stored = bottleneck.compress(z_e)[1]
    assert torch.equal(
        stored.isnan() if stored.dim() == 3 else stored[:, 0].isnan(), torch.isin(indices, torch.tensor(kept))
    )
    assert 0 < stored.isnan().double().mean() < 1
    if name == "combined":
        torch.testing.assert_close(losses["projection_loss"], compared.square().mean())


def test_of_equally_frequent_codes_the_first_win():
    assert most_frequent(torch.tensor([1.0, 3, 1, 3, 1]), 3).tolist() == [True, True, False, True, False]
    assert most_frequent(torch.zeros(4), 2).tolist() == [True, True, False, False]
    assert not most_frequent(torch.ones(4), 0).any()


@pytest.mark.parametrize("name", [*TABLED, "frequency_released"])
def test_nothing_is_continuous_before_the_warm_up_is_over(name):
    """6 % of 50 steps: three steps as vq, the fourth with the mask, in evaluation as in training."""
    bottleneck, plain = made(name, 3, steps=50), made("vq")
    assert bottleneck.warmup_steps == 3
    for step in range(3):
        assert torch.equal(bottleneck.eval()(draw(step))[0], plain(draw(step))[0])
        assert torch.equal(bottleneck.train()(draw(step))[0], plain(draw(step))[0])
    assert bottleneck.steps_seen == 3
    assert not torch.equal(bottleneck.eval()(draw(3))[0], plain(draw(3))[0])
    assert bottleneck.steps_seen == 3
    assert not torch.equal(bottleneck.train()(draw(3))[0], plain(draw(3))[0])


@pytest.mark.parametrize("name", TABLED)
def test_table_and_warm_up_are_in_the_state_and_frozen_in_evaluation(name):
    trained, other = made(name, 5, steps=20), made(name, 5, steps=1000)
    trained(draw(1))
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    trained.eval()(draw(2))
    trained.compress(draw(2))
    assert all(torch.equal(before[key], value) for key, value in trained.state_dict().items())
    assert {"table", "steps_seen", "warmup_steps"} <= before.keys()
    other.load_state_dict(before)
    assert torch.equal(other.eval()(draw(3))[0], trained(draw(3))[0])


def test_a_decoder_finds_the_continuous_positions_by_code_and_table():
    bottleneck = made("frequency", 5)
    bottleneck(draw(1))
    z, _, _ = bottleneck.eval()(draw(2))
    indices, continuous = bottleneck.compress(draw(2))
    assert torch.equal(bottleneck.decompress(indices, continuous.nan_to_num(123.0)), z)  # NaN tells it nothing


def test_the_released_mask_is_the_batchs_own_and_costs_a_bit():
    bottleneck = made("frequency_released", 3).eval()
    together, alone = bottleneck.compress(draw())[0], [bottleneck.compress(image)[0] for image in draw().split(1)]
    for symbols in (together, *alone):
        counts = [int((symbols[..., 0] == code).sum()) for code in range(K)]
        kept = sorted(range(K), key=lambda code: (-counts[code], code))[:3]
        assert torch.equal(symbols[..., 1] == 0, torch.isin(symbols[..., 0], torch.tensor(kept)))
    assert not torch.equal(torch.cat(alone)[..., 1], together[..., 1])
    assert bottleneck.alphabets == (K, 2)


@pytest.mark.parametrize("name", TABLED)
def test_the_continuous_fraction_is_that_of_the_counted_positions(name):
    bottleneck = made(name, 5)
    indices = bottleneck(draw(1))[2]
    counts = torch.bincount(indices.flatten(), minlength=K)
    assert "continuous_fraction" not in bottleneck.statistics(None)
    found = bottleneck.statistics(counts)["continuous_fraction"].item()
    assert found == pytest.approx((~bottleneck.discrete(indices)).double().mean().item())
    assert 0 < found < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frequent": K + 1}, "num_frequent is 17; it must be from 0 to 16"),
        ({"num_frequent": -1}, "num_frequent is -1"),
        ({"num_frequent": 2, "warmup_fraction": 1.5}, "warmup_fraction is 1.5; it must be from 0 to 1"),
        ({"num_frequent": 2, "decay": -0.1}, "decay is -0.1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_bottleneck("frequency", num_embeddings=K, embedding_dim=D, **options)


def test_combined_takes_the_projection_loss_where_it_projects():
    bottleneck = made("combined", 5)
    x = draw().requires_grad_()
    _, losses, indices = bottleneck(x)
    (gradient,) = torch.autograd.grad(losses["projection_loss"], x)
    at_discrete = gradient.abs().sum(dim=1)[bottleneck.discrete(indices)]
    assert at_discrete.numel() > 0
    assert not at_discrete.any()
    assert gradient.any()
    assert F.mse_loss(x, bottleneck.codebook[indices].permute(0, 3, 1, 2)) == losses["commitment_loss"]
