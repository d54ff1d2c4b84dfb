"""The model: encoder, bottleneck, decoder; how it is built from parameters, and how it is kept in a file."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.bottlenecks import make_bottleneck
from vqlib.errors import DataError, ParameterError
from vqlib.files import digest_of, write_atomically
from vqlib.networks import Decoder, Encoder
from vqlib.params import Network, Variant

# What a file that is not ours, or not whole, may raise on the way to a model.
ALIEN = (safetensors.SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, ImportError,
         RuntimeError, ParameterError)  # fmt: skip


class Output(NamedTuple):
    reconstruction: Tensor  # (B, 3, H, W) float32 in [-1, 1]
    losses: dict[str, Tensor]  # named, unweighted scalars; recon_loss is one of them
    indices: Tensor | None  # see vqlib.bottlenecks


class VQVAE(nn.Module):
    """Images (B, 3, H, W) in [-1, 1], H and W multiples of 4. Under autocast the latents are float32 all the same."""

    def __init__(self, encoder: nn.Module, bottleneck: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.bottleneck, self.decoder = encoder, bottleneck, decoder

    def encode(self, x: Tensor) -> Tensor:
        """``z_e`` (B, D, H/4, W/4), float32 at least."""
        return _at_least_float32(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        """Image (B, 3, 4h, 4w) in [-1, 1] from what a bottleneck lets through."""
        return _at_least_float32(self.decoder(z))

    def forward(self, x: Tensor) -> Output:
        z_e = self.encode(x)
        with torch.autocast(x.device.type, enabled=False):
            z, losses, indices = self.bottleneck(z_e)
        reconstruction = self.decode(z)
        return Output(reconstruction, {"recon_loss": F.mse_loss(reconstruction, x), **losses}, indices)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def make_model(network: Network, variant: Variant, seed: int = 0) -> VQVAE:
    """A new model whose initial weights depend on ``seed`` alone; torch's global generator is left as it was.

    Encoder and decoder of one seed start equal for every variant, since the bottleneck draws last.

    Raises:
        ParameterError: an option of the variant is out of its range.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's, where weights are drawn
        encoder, decoder = (kind(network.width, network.clean_skip) for kind in (Encoder, Decoder))
        numbers = {"num_embeddings": network.num_embeddings, "embedding_dim": network.width, **variant.options}
        try:
            bottleneck = make_bottleneck(variant.bottleneck, **numbers)
        except ValueError as error:  # "gain_bits is 99; it must be ..."
            raise ParameterError(f"params.yaml: variants.{variant.name}.{error}") from None
    return VQVAE(encoder, bottleneck, decoder).to(memory_format=torch.channels_last)


def save_model(path: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write weights as safetensors, float32 rounded to float16 where it can hold them, atomically.

    ``description`` (JSON) must hold ``network`` and ``variant``, so that the file alone is enough for ``load_model``.
    """
    small = {name: _halved(tensor).cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({**description, "sha256": _digest(small, description)}, sort_keys=True)
    write_atomically(path, save(small, metadata={"vqlib": text}))  # one entry: several come in random order


def _digest(tensors: dict[str, Tensor], description: dict[str, Any]) -> str:
    """sha256 over weights and description, without the entry that holds it."""
    return digest_of(save(tensors) + json.dumps(description, sort_keys=True).encode())


def _halved(tensor: Tensor) -> Tensor:
    half = tensor.half() if tensor.dtype == torch.float32 else tensor
    return half if torch.isfinite(half).all() else tensor


def load_model(path: Path) -> tuple[VQVAE, dict[str, Any]]:
    """The model of a file by ``save_model``, float32, in eval mode, on the CPU; and its description.

    Raises:
        DataError: no such file, or not one of ours, or damaged.
    """
    try:
        tensors, description = read_sealed(path)
        network, variant = Network(**description["network"]), Variant(**description["variant"])
        model = filled(functools.partial(make_model, network, variant), tensors)
    except FileNotFoundError:
        raise DataError(f"{path}: no such model; the stage train makes it (dvc repro)") from None
    except ALIEN as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a model of this project, or damaged ({reason})") from None
    return model, description


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights as they were saved, and description, of a file by ``save_model``.

    Raises ValueError for a seal that does not fit, and for what is no such file one of ``ALIEN``.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        description = json.loads((file.metadata() or {})["vqlib"])
    tensors = load_file(path)
    if description.pop("sha256") != _digest(tensors, description):
        raise ValueError("other weights, or another description, than those that were saved")
    return tensors, description


def filled(build: Callable[[], nn.Module], tensors: dict[str, Tensor]) -> nn.Module:
    """``build()`` with these weights, float32, in eval mode. Raises ValueError, before anything large is built, where
    they are of other shapes."""
    with torch.device("meta"):  # shapes without memory: a forged description may claim any size
        described = build().state_dict()
    if {name: x.shape for name, x in tensors.items()} != {name: x.shape for name, x in described.items()}:
        raise ValueError("other shapes than those of the network it describes")
    model = build()
    model.load_state_dict({name: _widened(tensor) for name, tensor in tensors.items()})
    return model.eval()


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor
