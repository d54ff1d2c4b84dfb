"""The wrapped quantizers of vector-quantize-pytorch: that they do in evaluation what they learnt in training."""

import pytest
import torch
from support import NETWORK, VARIANTS

from vqlib.bottlenecks import make_bottleneck
from vqlib.model import load_model, make_model, save_model

D, K = 6, 24
WRAPPED = {
    "ema": ("library", {}),
    "cosine": ("library", {"cosine": True}),
    "rotation": ("library", {"rotation": True}),
    "residual": ("library", {"quantizers": 2}),
    "simvq": ("simvq", {}),
    "fsq": ("fsq", {"levels": [4, 3, 2 + 1]}),
}


def draw(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, D, 3, 5, generator=torch.Generator().manual_seed(seed))


def made(name: str, **more):
    bottleneck, options = WRAPPED[name]
    torch.manual_seed(0)
    return make_bottleneck(bottleneck, num_embeddings=K, embedding_dim=D, **options, **more)


@pytest.mark.parametrize("name", WRAPPED)
def test_training_and_evaluation_choose_the_same(name):
    """The library chooses in training, we in evaluation: the same codes, vectors and losses from one state."""
    bottleneck = made(name)
    bottleneck(draw(1))
    z, losses, indices = bottleneck.eval()(draw(2))
    seen, errors, symbols = bottleneck.train()(draw(2))
    assert torch.equal(indices, symbols)
    torch.testing.assert_close(seen, z, rtol=1e-5, atol=1e-5)
    assert losses.keys() == errors.keys()
    for key in losses:
        if name != "simvq" or key != "codebook_loss":
            torch.testing.assert_close(errors[key], losses[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ema", "cosine", "rotation", "residual"])
def test_codes_start_from_data_in_training_only(name):
    bottleneck = made(name)
    bottleneck.eval()(draw())
    assert not any(layer._codebook.initted for layer in bottleneck.residual.layers)
    bottleneck.train()(draw())
    for layer in bottleneck.residual.layers:
        assert layer._codebook.initted
        assert layer.codebook.abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("name", ["ema", "cosine", "residual"])
def test_codes_that_are_not_chosen_are_replaced_by_vectors_of_the_batch(name):
    bottleneck = made(name)
    bottleneck(draw(1))
    codebook = bottleneck.residual.layers[0]._codebook
    codebook.embed.data[0, 3] = 1e3 if name != "cosine" else -codebook.embed.data[0].mean(dim=0)
    codebook.cluster_size[0, 3] = 0
    codebook.embed_avg[0, 3] = codebook.embed.data[0, 3] * 1e-6
    bottleneck(draw(2))
    rows = draw(2).permute(0, 2, 3, 1).reshape(-1, D)
    rows = torch.nn.functional.normalize(rows, dim=1) if name == "cosine" else rows
    assert torch.cdist(codebook.embed[0, 3:4], rows).min() < 1e-3


def test_the_threshold_of_replacement_is_a_share_of_the_mean_count():
    bottleneck = made("ema", revive_below=0.5)
    bottleneck(draw())
    assert bottleneck.residual.layers[0]._codebook.threshold_ema_dead_code == 0.5 * 4 * 3 * 5 / K


def test_residual_losses_add_up_to_the_librarys():
    bottleneck = made("residual")
    bottleneck(draw(1))
    x = draw(2).requires_grad_()
    z, losses, indices = bottleneck(x)
    first = bottleneck.eval()(draw(2))[1]
    assert indices.shape == (4, 3, 5, 2)
    torch.testing.assert_close(losses["commitment_loss"], (x - z).square().mean(), rtol=1e-4, atol=1e-6)
    assert losses["coarse_commitment_loss"] > losses["commitment_loss"]
    assert first.keys() == losses.keys()


def test_gradients_pass_straight_or_turned():
    for name, straight in (("ema", True), ("rotation", False)):
        bottleneck = made(name)
        bottleneck(draw(1))
        x = draw(2).requires_grad_()
        z = bottleneck(x)[0]
        weights = torch.linspace(-1, 1, z.numel()).view_as(z)
        (gradient,) = torch.autograd.grad((z * weights).sum(), x)
        assert torch.allclose(gradient, weights, atol=1e-5) == straight
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["ema", "cosine", "rotation", "residual"])
def test_draws_come_from_torchs_generator(name):
    states = []
    for seed in (3, 3, 4):
        bottleneck = made(name)
        torch.manual_seed(seed)
        bottleneck(draw())
        states.append(bottleneck.residual.layers[0].codebook.clone())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_fsq_has_all_combinations_of_its_levels():
    bottleneck = made("fsq").eval()
    assert bottleneck.alphabets == (36,)
    every = torch.arange(36).view(1, 6, 6)
    codes = bottleneck.decompress(every, None)
    assert len(codes.permute(0, 2, 3, 1).reshape(36, D).unique(dim=0)) == 36


def test_variants_at_an_equal_nominal_rate_have_it():
    sizes = {name: make_model(NETWORK, VARIANTS[name]).bottleneck.alphabets for name in VARIANTS}
    for name in ("vq_ema", "vq_cosine", "vq_rotation", "vq_simvq", "fsq"):
        assert sizes[name] == sizes["vq"] == (512,)
    assert sizes["vq_residual"] == (512, 512)


@pytest.mark.parametrize("name", ["vq_ema", "vq_cosine", "vq_residual", "fsq", "gain_shape_4", "frequency_312"])
def test_a_file_gives_back_what_was_trained(name, tmp_path):
    model = make_model(NETWORK, VARIANTS[name])
    x = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for _ in range(3):
        model(x)
    description = {"network": NETWORK.model_dump(), "variant": VARIANTS[name].model_dump()}
    save_model(tmp_path / "model.safetensors", model.state_dict(), description)
    again, _ = load_model(tmp_path / "model.safetensors")
    z_e = again.encode(x)
    again(x)
    assert torch.equal(again.bottleneck(z_e)[0], again.bottleneck.decompress(*again.bottleneck.compress(z_e)))
    for key, value in model.state_dict().items():  # what counts or decides an order is held exactly
        found = again.state_dict()[key]
        assert torch.equal(found, value.half().float() if value.dtype == torch.float32 else value)
