"""Priors as probability: everything sums or integrates to one, nothing sees the future, both paths draw the same."""

import itertools
from math import log, log2

import pytest
import torch

from benchmarks.uncached import Uncached
from vqlib.priors import make_network
from vqlib.priors.codes import CodePrior, draw
from vqlib.priors.latents import Latents, Layout
from vqlib.priors.reals import CodeGaussians, RealPrior, gaussian_log_prob, level_bits, level_probabilities
from vqlib.uniform import UniformQuantizer

NETWORKS = ("pixelcnn", "transformer")
CLASSES = 3


def restless(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every weight drawn anew, biases too, in float64: nothing stays at a value that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4
    return module.eval().requires_grad_(False)


def code_prior(network: str, shape=(2, 3), alphabets=(3,), classes=CLASSES, channels=4, layers=3) -> CodePrior:
    return restless(CodePrior(make_network(network, channels, layers, shape), channels, alphabets, classes))


def real_prior(network: str, layout: Layout, classes=CLASSES, channels=4, layers=3) -> RealPrior:
    prior = restless(RealPrior(make_network(network, channels, layers, layout.grid), channels, layout, classes))
    generator = torch.Generator().manual_seed(1)
    prior.base.mean.copy_(torch.randn(prior.base.mean.shape, generator=generator))
    prior.base.std.copy_(torch.rand(prior.base.std.shape, generator=generator) + 0.5)
    return prior


def random_symbols(count: int, layout: Layout, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    each = [torch.randint(size, (count, *layout.shape), generator=generator) for size in layout.alphabets]
    return torch.stack(each, dim=-1)


def random_reals(count: int, layout: Layout, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, layout.reals, *layout.grid, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("alphabets", "shape"), [((3,), (2, 3)), ((2, 3), (2, 2)), ((2, 2, 2), (1, 3))])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_probabilities_of_all_grids_sum_to_one(network, alphabets, shape):
    prior = code_prior(network, shape, alphabets)
    places = shape[0] * shape[1]
    every = list(itertools.product(itertools.product(*map(range, alphabets)), repeat=places))
    symbols = torch.tensor(every).view(-1, *shape, len(alphabets))
    for label in range(CLASSES):
        logs = prior.log_prob(symbols, torch.full((len(symbols),), label)).flatten(1).sum(dim=1)
        assert logs.logsumexp(dim=0).abs() < 1e-10
        assert logs.std() > 0.1  # and they are no uniform distribution


@pytest.mark.parametrize("network", NETWORKS)
def test_a_prior_without_classes_takes_no_labels(network):
    prior = code_prior(network, classes=1)
    assert prior.label is None
    symbols = torch.randint(3, (5, 2, 3, 1))
    assert torch.equal(prior.log_prob(symbols, None), prior.log_prob(symbols, torch.zeros(5, dtype=torch.int64)))


@pytest.mark.parametrize("network", NETWORKS)
def test_labels_change_what_is_likely(network):
    prior = code_prior(network)
    symbols = random_symbols(4, Layout((3,), (2, 3), 0, False))
    one, two = (prior.log_prob(symbols, torch.full((4,), label)) for label in (0, 1))
    assert ((one - two).abs() > 1e-6).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_no_position_sees_itself_or_a_later_one(network):
    """For every position: changing its symbols moves no feature up to it, and moves the very next one."""
    shape, layout = (5, 6), Layout((7,), (5, 6), 0, False)
    prior = code_prior(network, shape, (7,))
    symbols = random_symbols(1, layout)
    condition = prior.condition(torch.tensor([1]))

    def features(at: torch.Tensor) -> torch.Tensor:
        return prior.network(prior.embed(at).permute(0, 3, 1, 2), condition).flatten(2)

    before = features(symbols)
    for place in range(30):
        changed = symbols.clone()
        changed.view(-1)[place] = (changed.view(-1)[place] + 3) % 7
        moved = (features(changed) - before).abs().amax(dim=(0, 1)) > 0
        assert not moved[: place + 1].any(), place
        if place % 6 < 5:
            assert moved[place + 1], place
        if network == "transformer" or place + 6 < 30:
            assert moved[min(place + 6, 29)] or place == 29, place


@pytest.mark.parametrize("network", NETWORKS)
def test_a_symbol_sees_those_before_it_at_its_position_and_none_after(network):
    layout = Layout((4, 5, 6), (2, 2), 0, False)
    prior = code_prior(network, layout.shape, layout.alphabets)
    symbols, labels = random_symbols(1, layout), torch.tensor([0])
    before = prior.log_prob(symbols, labels)
    changed = symbols.clone()
    changed[0, 1, 0, 1] = (changed[0, 1, 0, 1] + 1) % 5
    moved = (prior.log_prob(changed, labels) - before)[0] != 0
    assert not moved[0].any()  # earlier positions
    assert moved[1, 0].tolist() == [False, True, True]  # itself, and the symbol after it
    assert moved[1, 1].all()


@pytest.mark.parametrize("alphabets", [(7,), (5, 3)])
@pytest.mark.parametrize("network", NETWORKS)
def test_cached_sampling_draws_what_whole_passes_draw(network, alphabets):
    prior = code_prior(network, (5, 6), alphabets, channels=8)
    labels = torch.arange(4) % CLASSES

    def sample() -> torch.Tensor:
        return prior.sample(labels, 4, 1.0, torch.Generator().manual_seed(5))

    fast = sample()
    prior.network = Uncached(prior.network)
    assert torch.equal(fast, sample())
    assert fast.flatten(1).unique(dim=0).shape[0] == 4
    assert not torch.equal(fast, prior.sample(labels, 4, 1.0, torch.Generator().manual_seed(6)))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_walk_sees_the_probabilities_of_log_prob(network):
    prior = code_prior(network, (4, 5), (6, 3), channels=8)
    symbols, labels = random_symbols(3, Layout((6, 3), (4, 5), 0, False)), torch.tensor([0, 2, 1])
    told, flat = [], iter(symbols.flatten(1, 2).permute(1, 2, 0).flatten(0, 1))  # (places * Q) of (B,)

    def choose(logs: torch.Tensor) -> torch.Tensor:
        one = next(flat)
        told.append(logs.gather(1, one[:, None]).squeeze(1))
        return one

    assert torch.equal(prior.walk(labels, 3, choose), symbols)
    expected = prior.log_prob(symbols, labels).flatten(1, 2).permute(1, 2, 0).flatten(0, 1)
    assert torch.allclose(torch.stack(told), expected, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
def test_samples_have_the_frequencies_of_the_model(network):
    """Of every grid of two rows, so that rows above are looked at too."""
    prior = code_prior(network, (2, 2), (3,))
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    label = torch.full((len(every),), 2)
    exact = prior.log_prob(every.view(-1, 2, 2, 1), label).flatten(1).sum(dim=1).exp()
    drawn = prior.sample(torch.full((40_000,), 2), 40_000, 1.0, torch.Generator().manual_seed(0)).view(-1, 4)
    counted = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81) / len(drawn)
    assert ((counted - exact).abs() < 5 * (exact / 40_000) ** 0.5 + 1e-4).all()
    assert exact.max() > 2 / 81


@pytest.mark.parametrize("network", NETWORKS)
def test_sampling_never_passes_over_all_positions(network, monkeypatch):
    """One step a position with what is kept of those before, for symbols and for reals."""
    layout = Layout((3, 2), (4, 5), 2, False)
    priors = code_prior(network, layout.shape, layout.alphabets), real_prior(network, layout)
    steps = [0, 0]
    for number, prior in enumerate(priors):

        def step(*args, number=number, inner=prior.network.step):
            steps[number] += 1
            return inner(*args)

        monkeypatch.setattr(prior.network, "forward", None)  # would fail
        monkeypatch.setattr(prior.network, "step", step)
    labels, generator = torch.tensor([0, 1]), torch.Generator().manual_seed(0)
    symbols = priors[0].sample(labels, 2, 1.0, generator)
    priors[1].sample(symbols, labels, 1.0, generator)
    assert steps == [20, 20]


def test_temperature_sharpens_and_flattens():
    prior = code_prior("pixelcnn", (2, 2), (3,))

    def entropy(temperature: float) -> float:
        symbols = prior.sample(
            torch.zeros(4000, dtype=torch.int64), 4000, temperature, torch.Generator().manual_seed(0)
        )
        share = symbols.flatten(1).unique(dim=0, return_counts=True)[1] / 4000
        return float(-(share * share.log()).sum())

    assert entropy(0.25) + 0.5 < entropy(1.0) < entropy(4.0) - 0.1
    assert entropy(1e6) == pytest.approx(torch.tensor(81.0).log().item(), abs=0.03)  # uniform


def test_draws_follow_the_distribution_and_never_an_impossible_symbol():
    logs = torch.tensor([0.0, 0.5, 0.2, 0.3, 0.0]).log().expand(40_000, 5).double()
    shares = torch.bincount(draw(logs, torch.Generator().manual_seed(0)), minlength=5) / 40_000
    assert torch.allclose(shares.double(), logs[0].exp(), atol=0.01)
    assert shares[0] == shares[4] == 0


LAYOUTS = {
    "gains": Layout((4,), (2, 3), 1, False),
    "vectors": Layout((4, 2), (2, 2), 3, False),
    "rows": Layout((4,), (2, 3), 5, True),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_the_density_of_every_real_integrates_to_one(network, layout):
    """Numerically, over each coordinate in turn with those before it fixed: the chain rule does the rest."""
    prior = real_prior(network, layout)
    line = torch.linspace(-60, 60, 24_001, dtype=torch.float64)
    reals = random_reals(1, layout)
    symbols, labels = random_symbols(1, layout), torch.tensor([1])
    mean, std = prior(reals, symbols, labels)
    for coordinate in range(reals.numel()):
        several = reals.flatten(1).expand(2, -1).clone()
        several[:, coordinate] = torch.tensor([0.3, -0.8])
        logs = prior.log_prob(several.view(2, *reals.shape[1:]), symbols.expand(2, -1, -1, -1), labels.expand(2))
        m, s = mean.flatten()[coordinate], std.flatten()[coordinate]
        density = gaussian_log_prob(line, m, s).exp()
        assert torch.trapezoid(density, line) == pytest.approx(1, abs=1e-6)
        # and the density at a value is that of this very Gaussian: the value itself does not move its own parameters
        expected = gaussian_log_prob(torch.tensor([0.3, -0.8], dtype=torch.float64), m, s)
        assert torch.allclose(logs.flatten(1)[:, coordinate], expected, atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1)])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_joint_density_of_two_gains_integrates_to_one(network, shape):
    layout = Layout((3,), shape, 1, False)
    prior = real_prior(network, layout)
    line = torch.linspace(-25, 25, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line).view(-1, 1, *shape)
    symbols, labels = random_symbols(1, layout).expand(len(grid), -1, -1, -1), torch.zeros(len(grid), dtype=torch.int64)
    density = prior.log_prob(grid, symbols, labels).flatten(1).sum(dim=1).exp().view(161, 161)
    assert torch.trapezoid(torch.trapezoid(density, line), line) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_reals_see_all_codes_and_earlier_reals_only(network, layout):
    prior = real_prior(network, layout)
    reals, symbols, labels = random_reals(1, layout), random_symbols(1, layout), torch.tensor([0])

    def means(reals: torch.Tensor, symbols: torch.Tensor) -> torch.Tensor:
        return prior(reals, symbols, labels)[0].flatten(2)[0]  # (R, T)

    before = means(reals, symbols)
    for place in range(before.shape[1]):
        changed = reals.clone()
        changed.flatten(2)[:, 0, place] += 1
        moved = (means(changed, symbols) - before).abs().amax(dim=0) > 0
        assert not moved[: place + 1].any()
        assert moved[place + 1 : place + 2].all()
    last = symbols.clone()
    last[0, -1, -1, 0] = (last[0, -1, -1, 0] + 1) % 4
    assert (means(reals, last) != before)[:, :-1].any()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_cached_sampling_of_reals_draws_what_whole_passes_draw(network, layout):
    prior = real_prior(network, layout)
    symbols, labels = random_symbols(4, layout), torch.arange(4) % CLASSES

    def sample() -> torch.Tensor:
        return prior.sample(symbols, labels, 1.0, torch.Generator().manual_seed(5))

    fast = sample()
    prior.network = Uncached(prior.network)
    assert torch.allclose(fast, sample(), atol=1e-10, rtol=0)


def test_nothing_is_asked_of_positions_that_store_nothing():
    layout = LAYOUTS["vectors"]
    prior = real_prior("pixelcnn", layout)
    prior.base.stored[:4] = False  # of the codes 0 and 1, with either second symbol
    symbols, labels = random_symbols(3, layout), torch.tensor([0, 1, 2])
    drawn = prior.sample(symbols, labels, 1.0, torch.Generator().manual_seed(0))
    hidden = (symbols[..., 0] < 2)[:, None].expand_as(drawn)
    assert torch.equal(torch.isnan(drawn), hidden)
    assert 0 < hidden.sum() < hidden.numel()
    logs = prior.log_prob(drawn, symbols, labels)
    assert torch.equal(logs == 0, hidden)
    assert prior.nats(Latents(symbols, drawn, labels))[1] == int((~hidden).sum())


def test_samples_of_reals_have_the_moments_of_the_model():
    layout = LAYOUTS["gains"]
    prior = real_prior("transformer", layout)
    symbols = random_symbols(1, layout).expand(6_000, -1, -1, -1)
    drawn = prior.sample(symbols, torch.zeros(6_000, dtype=torch.int64), 1.0, torch.Generator().manual_seed(0))
    mean, std = prior(drawn, symbols, torch.zeros(6_000, dtype=torch.int64))
    z = (drawn - mean) / std  # standard normal, whatever the network says
    assert z.mean(dim=0).abs().max() < 0.06
    assert (z.std(dim=0) - 1).abs().max() < 0.06
    half = prior.sample(symbols, torch.zeros(6_000, dtype=torch.int64), 0.25, torch.Generator().manual_seed(0))
    first = half[:, 0, 0, 0]
    assert (first.std() / drawn[:, 0, 0, 0].std()).item() == pytest.approx(0.5, abs=0.02)


def test_a_new_prior_of_reals_is_the_gaussian_per_code():
    layout = LAYOUTS["gains"]
    prior = RealPrior(make_network("pixelcnn", 4, 2, layout.grid), 4, layout, 1).double()
    prior.base.mean.copy_(torch.arange(4.0)[:, None])
    reals, symbols = random_reals(2, layout), random_symbols(2, layout)
    assert torch.equal(prior.log_prob(reals, symbols, None), gaussian_log_prob(reals, *prior.base(symbols)))


def test_gaussians_per_code_are_fitted_and_a_rare_code_leans_on_the_rest():
    layout = Layout((4,), (1, 500), 1, False)
    symbols = (torch.arange(500) % 2).view(1, 1, 500, 1).clone()
    symbols[0, 0, 0, 0] = 2  # once; 3 never
    reals = torch.randn(1, 1, 1, 500, generator=torch.Generator().manual_seed(0)) + 5.0 * symbols[None, ..., 0]
    base = CodeGaussians(layout)
    base.fit(Latents(symbols, reals, torch.zeros(1, dtype=torch.int64)))
    for code in (0, 1):
        own = reals[0, 0][symbols[0, ..., 0] == code]
        assert base.mean[code, 0] == pytest.approx(own.mean().item(), abs=0.1)
        assert base.std[code, 0] == pytest.approx(own.std().item(), abs=0.1)
    assert base.mean[3, 0] == pytest.approx(reals.mean().item(), abs=1e-4)
    assert base.std[3, 0] == pytest.approx(reals.std(correction=0).item(), abs=1e-4)
    assert base.mean[3, 0] < base.mean[2, 0] < reals[0, 0, 0, 0]


def test_levels_of_a_quantizer_sum_to_one_and_agree_with_their_bits():
    quantizer = UniformQuantizer(torch.linspace(-2, 3, 1001), bits=3)
    mean, std = torch.tensor([[-9.0, 0.1, 2.0]]), torch.tensor([[0.5, 1e-3, 40.0]])
    table = level_probabilities(mean, std, quantizer)
    assert table.shape == (1, 3, 8)
    assert torch.allclose(table.sum(dim=-1), torch.ones(1, 3, dtype=torch.float64), atol=1e-12)
    for level in range(8):
        bits = level_bits(torch.full((1, 3), level), mean, std, quantizer)
        assert torch.allclose(bits, -torch.log2(table[..., level]), atol=1e-9)


def test_fine_levels_cost_the_density_and_the_bin():
    """Bits of a level go to -log2(density * step) as the step goes to 0."""
    quantizer = UniformQuantizer(torch.linspace(-4, 4, 1001), bits=12)
    mean, std = torch.tensor([[[0.3]], [[1.1]]], dtype=torch.float64)
    values = quantizer(torch.tensor([[-1.0, 0.0, 2.5]], dtype=torch.float64))
    bits = level_bits(quantizer.indices(values), mean, std, quantizer)
    nats = -gaussian_log_prob(values, mean, std)
    expected = nats / log(2) - log2(quantizer.step)
    assert torch.allclose(bits, expected, atol=2e-3)
