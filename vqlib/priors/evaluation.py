"""What a prior is worth in bits, on the test split: its likelihood in float32 beside what numbers cost alone."""

from math import log, log2
from typing import Any

import torch
from torch import Tensor

from vqlib.evaluation import RANGE_IMAGES, spread
from vqlib.priors.codes import CodePrior
from vqlib.priors.latents import Latents
from vqlib.priors.model import PriorModel
from vqlib.priors.naive import order0_bits, order0_reals
from vqlib.priors.reals import RealPrior, gaussian_log_prob, level_bits
from vqlib.rate import GAIN_BITS, nominal_rate
from vqlib.uniform import UniformQuantizer


def quantizer_of(train: Latents) -> UniformQuantizer | None:
    """The one with which ``vqlib.evaluation`` rounds: from the same images, one range for gains, else one per real."""
    if train.reals is None:
        return None
    values = train.reals[spread(len(train), RANGE_IMAGES)]
    return UniformQuantizer(values, GAIN_BITS, None if values.shape[1] == 1 else 1)


@torch.no_grad()
def code_bits(prior: CodePrior, latents: Latents, device: torch.device, batch_size: int = 250) -> list[float]:
    """Mean bits of each of the Q symbols of a position, given all before it."""
    total = torch.zeros(len(prior.alphabets), dtype=torch.float64)
    for batch in latents.in_order(batch_size, device):
        total -= prior.log_prob(batch.symbols, batch.labels).double().flatten(0, 2).sum(dim=0).cpu()
    return (total / log(2) / latents.symbols[..., 0].numel()).tolist()


@torch.no_grad()
def real_bits(
    prior: RealPrior, latents: Latents, quantizer: UniformQuantizer, device: torch.device, batch_size: int = 250
) -> dict[str, dict[str, float]]:
    """Of one Gaussian per code and of the network: ``nats`` and ``bits`` (differential) of a real as it is, and
    ``level_bits``, what it costs once rounded to a level of ``quantizer``, when those before it are rounded too."""
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in ("gaussian_per_code", "network")}
    count = int((~torch.isnan(latents.reals)).sum())
    for batch in latents.in_order(batch_size, device):
        rounded = quantizer(batch.reals)
        levels, there = quantizer.indices(batch.reals), ~torch.isnan(batch.reals)
        gaussians = {
            "gaussian_per_code": [prior.base(batch.symbols)] * 2,
            "network": [prior(reals, batch.symbols, batch.labels) for reals in (batch.reals, rounded)],
        }
        for name, (exact, coarse) in gaussians.items():
            nats = -gaussian_log_prob(batch.reals, *exact).double().sum()
            bits = level_bits(levels, *coarse, quantizer)[there].sum()
            sums[name] += torch.stack([nats, bits]).cpu()
    return {
        name: {"nats": float(nats / count), "bits": float(nats / count / log(2)), "level_bits": float(bits / count)}
        for name, (nats, bits) in sums.items()
    }


@torch.no_grad()
def bits_of_images(
    prior: PriorModel, latents: Latents, quantizer: UniformQuantizer | None, device: torch.device
) -> Tensor:
    """What every image costs in all (N,): its class, its symbols, and its reals as levels of ``quantizer``."""
    found = []
    for batch in latents.in_order(250, device):
        logs = prior.codes[prior.chosen].log_prob(batch.symbols, batch.labels)
        bits = log2(prior.classes) - logs.double().flatten(1).sum(dim=1) / log(2)
        if batch.reals is not None:
            mean, std = prior.reals(quantizer(batch.reals), batch.symbols, batch.labels)
            each = level_bits(quantizer.indices(batch.reals), mean, std, quantizer)
            bits = bits + torch.where(torch.isnan(batch.reals), 0.0, each).flatten(1).sum(dim=1)
        found.append(bits.cpu())
    return torch.cat(found)


def describe_bits(
    prior: PriorModel, train: Latents, test: Latents, quantizer: UniformQuantizer | None, pixels: int,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """``codes``, ``reals`` and ``rate`` of a result. ``latent_bits_per_value`` spreads the latents' bits over the 3 H W
    values of an image; it is not the likelihood of an image, which is what "bits per dimension" means elsewhere."""
    codes: dict[str, Any] = {"order0": order0_bits(test.symbols, prior.layout)}
    codes |= {name: code_bits(one, test, device) for name, one in prior.codes.items()}
    positions = test.symbols[0, ..., 0].numel()
    label = log2(prior.classes) / pixels
    order0, under_prior = (sum(codes[name]) * positions / pixels for name in ("order0", prior.chosen))
    rate = {"bpp_label": label, "bpp_codes_order0": order0, "bpp_codes_prior": under_prior}
    reals, stored = None, 0.0  # numbers of an image
    if train.has_reals and test.has_reals:
        stored = int((~torch.isnan(test.reals)).sum()) / len(test)
        reals = {
            "per_image": stored,
            "levels": quantizer.levels,
            "step": float(torch.as_tensor(quantizer.step).mean()),
            "order0": order0_reals(train, test, quantizer),
            **real_bits(prior.reals, test, quantizer, device),
        }
        rate |= {"bpp_reals_order0": reals["order0"]["level_bits"] * stored / pixels,
                 "bpp_reals_prior": reals["network"]["level_bits"] * stored / pixels}  # fmt: skip
    rate["bpp_nominal"] = nominal_rate(prior.layout.alphabets, positions, stored, pixels)[f"bpp_{GAIN_BITS}bit"]
    rate["bpp_order0"] = order0 + rate.get("bpp_reals_order0", 0.0)
    rate["bpp_prior"] = label + under_prior + rate.get("bpp_reals_prior", 0.0)
    rate["latent_bits_per_value"] = rate["bpp_prior"] / 3
    return {"codes": codes, "reals": reals, "rate": rate}
