"""What is particular to the two projections: the paper's text (over D) and its released code (over w)."""

import pytest
import torch
from torch.nn import functional as F

from vqlib.bottlenecks import make_bottleneck
from vqlib.model import make_model
from vqlib.params import Network, Variant

SIZES = {"num_embeddings": 16, "embedding_dim": 6}
z_e = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(0))


def pair(**options):
    """Both projections with one codebook."""
    torch.manual_seed(0)
    text, released = (make_bottleneck(name, **SIZES, **options) for name in ("projected", "projected_rows"))
    released.load_state_dict(text.state_dict())
    return text, released


def test_gains_are_one_per_position_or_one_per_channel_and_row():
    text, released = pair()
    assert text.compress(z_e)[1].shape == (2, 3, 5)
    assert released.compress(z_e)[1].shape == (2, 6, 3)


def test_what_the_decoder_sees_is_the_projection_on_the_chosen_code():
    text, released = pair()
    indices, _ = text.compress(z_e)
    z_q = text.codebook.detach()[indices].permute(0, 3, 1, 2)
    for bottleneck, dim in ((text, 1), (released, 3)):
        z, losses, _ = bottleneck(z_e)
        expected = (z_e * z_q).sum(dim, keepdim=True) / (z_q * z_q).sum(dim, keepdim=True) * z_q
        torch.testing.assert_close(z, expected)
        torch.testing.assert_close(losses["projection_loss"], (expected - z_q).square().mean())
    assert not torch.allclose(text(z_e)[0], released(z_e)[0], atol=0.1)


@pytest.mark.parametrize("name", ["projected", "projected_rows"])
def test_the_projection_loss_is_the_squared_code_times_the_gain_minus_one_squared(name):
    bottleneck = make_bottleneck(name, **SIZES)
    indices, gain = bottleneck.compress(z_e)
    z_q = bottleneck.codebook.detach()[indices].permute(0, 3, 1, 2)
    per_vector = z_q.square().sum(dim=bottleneck.dim) * (gain - 1).square()
    torch.testing.assert_close(bottleneck(z_e)[1]["projection_loss"], per_vector.sum() / z_e.numel())


@pytest.mark.parametrize("name", ["projected", "projected_rows"])
def test_at_initialisation_the_code_inside_p_multiplies_the_gradient(name):
    """Measured: 1,400 to 4,300 times at widths 8 to 256, as 1 / (z_q.z_q) is differentiated at short codes."""
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def norm(detach_code: bool) -> float:
        variant = Variant(name=name, bottleneck=name, options={"detach_code": detach_code})
        model = make_model(Network(width=16, num_embeddings=512), variant)
        found = torch.autograd.grad(model(x).losses["recon_loss"], list(model.encoder.parameters()))
        return torch.nn.utils.get_total_norm(found).item()

    assert norm(detach_code=False) > 100 * norm(detach_code=True)


@pytest.mark.parametrize("name", ["projected", "projected_rows"])
def test_interventions_change_the_gradient_or_the_gain_as_described(name):
    torch.manual_seed(0)
    plain = make_bottleneck(name, **SIZES)
    detached, guarded = (make_bottleneck(name, **SIZES, **o) for o in ({"detach_code": True}, {"guard": 1e-4}))
    for other in (detached, guarded):
        other.load_state_dict(plain.state_dict())

    assert torch.equal(detached(z_e)[0], plain(z_e)[0])
    x = z_e.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detached(x)[0].sum(), x)
    z_q = plain.codebook.detach()[plain.compress(z_e)[0]].permute(0, 3, 1, 2)
    dim = plain.dim
    linear = z_q * z_q.sum(dim, keepdim=True) / z_q.square().sum(dim, keepdim=True)  # of z_e.z_q alone
    torch.testing.assert_close(gradient, linear)

    shrunk = guarded.compress(z_e)[1] / plain.compress(z_e)[1]
    square = z_q.square().sum(dim)
    torch.testing.assert_close(shrunk, square / (square + 1e-4))


def test_relu_in_loss_is_the_released_loss_and_changes_nothing_else():
    torch.manual_seed(0)
    plain, released = (make_bottleneck("projected_rows", **SIZES, relu_in_loss=flag) for flag in (False, True))
    released.load_state_dict(plain.state_dict())
    (z, losses, indices), (seen, changed, _) = plain(z_e), released(z_e)
    z_q = plain.codebook[indices].permute(0, 3, 1, 2)
    assert torch.equal(z, seen)
    assert changed.pop("projection_loss") == F.mse_loss(z.clamp(min=0), z_q)
    assert losses.pop("projection_loss") == F.mse_loss(z, z_q)
    assert changed == losses


def test_the_log_of_rows_has_the_least_divisor_that_a_row_of_one_code_can_have():
    _, released = pair()
    with torch.no_grad():
        released.codebook.fill_(0.05)
        released.codebook[3, 2], released.codebook[4, 0] = 1e-3, -1e-5
    counts = torch.ones(16, dtype=torch.int64)
    for unused, entry in (([], 1e-5), ([4], 1e-3)):
        counts[unused] = 0
        assert released.statistics(counts)["smallest_used_code_entry"].item() == pytest.approx(entry)
    row = released.codebook.detach()[3, 2].repeat(5)  # w 5
    assert row.norm().item() == pytest.approx(5**0.5 * 1e-3)
