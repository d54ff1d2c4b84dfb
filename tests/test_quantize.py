"""The arithmetic of vector quantization against its definitions, written out in float64."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vqlib import quantize
from vqlib.quantize import look_up, nearest_code, perplexity, positions, project, straight_through

B, D, H, W, K = 2, 5, 3, 7, 11  # no two equal, so that no axis can stand for another


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def brute_force(z_e: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    z_e, codes = z_e.double().numpy(), codebook.double().numpy()
    found = np.empty((z_e.shape[0], *z_e.shape[2:]), dtype=np.int64)
    for b, y, x in np.ndindex(found.shape):
        found[b, y, x] = min(range(len(codes)), key=lambda k: ((z_e[b, :, y, x] - codes[k]) ** 2).sum())
    return torch.from_numpy(found)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def test_positions_hold_the_channels_of_one_place():
    z = draw(B, D, H, W)
    rows = positions(z)
    assert rows.shape == (B * H * W, D)
    for row, (b, y, x) in zip(rows, itertools.product(range(B), range(H), range(W)), strict=True):
        assert torch.equal(row, z[b, :, y, x])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("budget", [1, 4 * K * 4, 2**20])  # one row at a time, a few, all: never a divisor of the rows
def test_nearest_code_is_that_of_brute_force(monkeypatch, dtype, layout, budget):
    monkeypatch.setitem(quantize.SEARCH_BUDGET, "cpu", budget)
    z_e, codebook = draw(B, D, H, W, dtype=dtype).contiguous(memory_format=layout), draw(K, D, seed=1, dtype=dtype)
    found = nearest_code(z_e, codebook)
    assert found.dtype == torch.int64
    assert torch.equal(found, brute_force(z_e, codebook))
    assert len(found.unique()) > K / 2


class Results(TorchDispatchMode):
    """Bytes of every tensor that an operation inside the block gives."""

    def __init__(self):
        super().__init__()
        self.bytes: list[int] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        self.bytes += [one.numel() * one.element_size() for one in tree_leaves(found) if isinstance(one, torch.Tensor)]
        return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_search_keeps_its_budget_whatever_there_is_to_search(layout):
    """Two channels, so that latents and codebook, which are there anyway, are small beside the scores."""
    budget, codebook = quantize.SEARCH_BUDGET["cpu"], draw(16_384, 2, seed=1)
    largest = []
    for batch, grid in ((1, 16), (1, 32), (2, 32), (1, 64)):  # scores of all positions at once: 4 to 64 budgets
        z_e = draw(batch, 2, grid, grid).contiguous(memory_format=layout)
        with Results() as results:
            nearest_code(z_e, codebook)
        largest.append(max(results.bytes))
    assert set(largest) == {budget}  # it divides by K, so blocks are filled: the mode has seen them


def test_of_equally_near_codes_the_first_wins():
    codebook = draw(K, D, seed=1)
    once, thrice = (nearest_code(draw(B, D, H, W), codebook.repeat(n, 1)) for n in (1, 3))
    assert torch.equal(once, thrice)
    between = torch.zeros(1, 1, 1, 1)
    assert nearest_code(between, torch.tensor([[2.0], [1.0], [-1.0]])).item() == 1


def test_codes_are_chosen_in_float32_whatever_autocast_says():
    codebook, z_e = torch.tensor([[1.0], [1.001]]), torch.full((1, 1, 1, 1), 1.0009)
    with torch.autocast("cpu", torch.bfloat16):
        assert nearest_code(z_e, codebook).item() == 1
    assert codebook.bfloat16().unique().numel() == 1  # which bfloat16 cannot tell apart


def test_no_gradient_flows_through_the_choice():
    assert not nearest_code(draw(B, D, H, W).requires_grad_(), draw(K, D).requires_grad_()).requires_grad


def test_look_up_puts_codes_at_their_places_and_gradients_back():
    codebook = draw(K, D).requires_grad_()
    indices = torch.randint(K, (B, H, W), generator=torch.Generator().manual_seed(2))
    z_q = look_up(indices, codebook)
    assert z_q.shape == (B, D, H, W)
    for b, y, x in np.ndindex(B, H, W):
        assert torch.equal(z_q[b, :, y, x], codebook[indices[b, y, x]])
    z_q.sum().backward()
    uses = torch.bincount(indices.flatten(), minlength=K).float()
    assert torch.equal(codebook.grad, uses[:, None].expand(K, D))


def test_straight_through_has_the_value_of_the_code_and_the_gradient_of_the_identity():
    z_e, z_q = draw(B, D, H, W).mul(1e3).requires_grad_(), draw(B, D, H, W, seed=1).mul(1e-3).requires_grad_()
    z = straight_through(z_e, z_q)
    assert same_bits(z.detach(), z_q.detach())
    assert not same_bits((z_e + (z_q - z_e)).detach(), z_q.detach())  # the usual way of writing it rounds
    upstream = draw(B, D, H, W, seed=2)
    z.backward(upstream)
    assert torch.equal(z_e.grad, upstream)
    assert z_q.grad is None


def project_by_loops(a: np.ndarray, b: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Vector by vector along ``dim``, and the gains."""
    a, b = np.moveaxis(a, dim, -1), np.moveaxis(b, dim, -1)
    projected, gains = np.empty_like(b), np.empty(b.shape[:-1])
    for place in np.ndindex(gains.shape):
        gains[place] = sum(p * q for p, q in zip(a[place], b[place], strict=True)) / sum(q * q for q in b[place])
        projected[place] = [gains[place] * q for q in b[place]]
    return np.moveaxis(projected, -1, dim), gains


@pytest.mark.parametrize(("dim", "gains"), [(1, (B, H, W)), (3, (B, D, H))])  # the paper's text, its released code
def test_projection_is_its_definition(dim, gains):
    a, b = draw(B, D, H, W, dtype=torch.float64), draw(B, D, H, W, seed=1, dtype=torch.float64)
    projected, gain = project(a, b, dim)
    expected, expected_gain = project_by_loops(a.numpy(), b.numpy(), dim)
    assert gain.shape == gains
    np.testing.assert_allclose(projected, expected, rtol=1e-12)
    np.testing.assert_allclose(gain, expected_gain, rtol=1e-12)
    residual = ((a - projected) * b).sum(dim=dim)  # what is left is orthogonal to b
    np.testing.assert_allclose(residual, 0, atol=1e-12)


def test_the_two_projections_differ():
    a, b = draw(B, D, H, W), draw(B, D, H, W, seed=1)
    assert not torch.allclose(project(a, b, 1)[0], project(a, b, 3)[0], atol=0.1)


def test_a_guard_of_the_size_of_the_code_halves_the_gain():
    a, b = draw(1, D, 1, 1), draw(1, D, 1, 1, seed=1)
    _, gain = project(a, b, 1)
    _, guarded = project(a, b, 1, guard=b.square().sum().item())
    torch.testing.assert_close(guarded, gain / 2)


def test_perplexity():
    counts = torch.tensor([5, 0, 3, 1, 1])
    share = [0.5, 0.3, 0.1, 0.1]
    assert perplexity(counts).item() == pytest.approx(np.exp(-sum(p * np.log(p) for p in share)), rel=1e-12)
    assert perplexity(torch.full((K,), 9)).item() == pytest.approx(K)
    assert perplexity(torch.tensor([0, 4, 0])).item() == 1
    assert perplexity(torch.zeros(K, dtype=torch.int64)).item() == 1  # nothing seen yet
