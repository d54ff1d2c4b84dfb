"""Encoder and decoder against the paper's list of layers and its released residual block."""

import pytest
import torch
from torch import nn

from vqlib.networks import Decoder, Encoder, ResidualBlock


class ReleasedBlock(nn.Module):
    """The residual block as released: the first ReLU works in place, so that the skip sees it too."""

    def __init__(self, body: nn.Sequential):
        super().__init__()
        self.block = nn.Sequential(nn.ReLU(inplace=True), *body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x)


def without_body(clean_skip: bool) -> ResidualBlock:
    """A block whose f is zero: what is left is the skip."""
    block = ResidualBlock(6, clean_skip)
    nn.init.zeros_(block.body[-1].weight)
    return block


def test_the_residual_block_computes_what_the_released_one_does():
    torch.manual_seed(0)
    block, x = ResidualBlock(6), torch.randn(2, 6, 3, 5)
    released = ReleasedBlock(block.body)
    assert torch.equal(block(x.clone()), released(x.clone()))


def test_the_skip_carries_relu_and_leaves_the_input_alone():
    x = torch.linspace(-2, 2, 2 * 6 * 3 * 5).view(2, 6, 3, 5)
    before = x.clone()
    assert torch.equal(without_body(clean_skip=False)(x), x.clamp(min=0))
    assert torch.equal(without_body(clean_skip=True)(x), x)
    assert torch.equal(x, before)


def test_layers_stand_in_the_order_of_the_paper():
    def names(network: nn.Module) -> list[str]:
        return [type(layer).__name__ for layer in network.layers]

    assert names(Encoder(4)) == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "ResidualBlock", "ResidualBlock"]
    assert names(Decoder(4)) == ["ResidualBlock", "ResidualBlock", "ReLU", "ConvTranspose2d", "BatchNorm2d", "ReLU",
                                 "ConvTranspose2d", "Tanh"]  # fmt: skip


def test_four_pixels_a_side_become_one_position():
    x = torch.rand(2, 3, 16, 24) * 2 - 1
    z = Encoder(7)(x)
    assert z.shape == (2, 7, 4, 6)
    y = Decoder(7)(z)
    assert y.shape == x.shape
    assert y.abs().max() <= 1


@pytest.mark.parametrize("network", [Encoder, Decoder])
def test_weights_start_xavier_uniform_and_biases_at_zero(network):
    convolutions = [m for m in network(32).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 6
    for layer in convolutions:
        fans = (layer.in_channels + layer.out_channels) * layer.kernel_size[0] * layer.kernel_size[1]
        bound = (6 / fans) ** 0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not layer.bias.any()
