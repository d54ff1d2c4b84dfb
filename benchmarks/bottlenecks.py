"""What each bottleneck costs: whole training steps in turns, and the bottleneck alone, forward and backward."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import measure, naive
from vqlib.bottlenecks import make_bottleneck
from vqlib.device import make_deterministic
from vqlib.params import Variant, load_variants

REFERENCE = "identity"


def fitting(codes: int) -> dict[str, Variant]:
    """All variants of params.yaml; with few codes (in tests) those that can be made with as few."""
    found = {}
    for name, variant in load_variants().items():
        try:
            make_bottleneck(variant.bottleneck, **{"num_embeddings": codes, "embedding_dim": 8, **variant.options})
        except (ValueError, RuntimeError):
            continue
        found[name] = variant
    return found


def steps_in_turn(given: dict, variants: dict[str, Variant], device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds per step of every variant, all in turns: one round has one interval of each."""
    steps = 20 if device.type == "cuda" else 1
    split = measure.made_split(8 * given["batch"], given["size"])
    trainings = {name: measure.TakingTurns(given, variant, split, device, steps) for name, variant in variants.items()}
    seconds = measure.in_turn({name: training.interval for name, training in trainings.items()}, rounds)
    for training in trainings.values():
        training.close()
    return {**given, "steps": steps, "rounds": rounds, "seconds": seconds}


def alone(given: dict, variants: dict[str, Variant], device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds of forward and backward of every bottleneck by itself, on random latents (B, D, h, w), in turns."""
    make_deterministic()
    grid = given["size"] // 4
    latents = naive.normal(given["batch"], given["width"], grid, grid).to(device)
    latents = latents.contiguous(memory_format=torch.channels_last)
    works = {name: _forward_and_backward(given, variant, latents) for name, variant in variants.items()}
    seconds = measure.in_turn(works, rounds, warm_up=2)
    return {**given, "rounds": rounds, "seconds": seconds}


def _forward_and_backward(given: dict, variant: Variant, latents: torch.Tensor) -> Callable[[], float]:
    numbers = {"num_embeddings": given["codes"], "embedding_dim": given["width"], **variant.options}
    bottleneck = make_bottleneck(variant.bottleneck, **numbers).to(latents.device).train()
    bottleneck.begin(1_000_000)
    z_e = latents.clone().requires_grad_()

    def work() -> None:
        z, losses, _ = bottleneck(z_e)
        sum(losses.values(), start=z.square().mean()).backward()  # some loss behind the decoder
        z_e.grad = None
        bottleneck.zero_grad(set_to_none=True)

    return lambda: measure.timed(work, latents.device)


def masks(given: dict, device: torch.device, rounds: int) -> dict[str, Any]:
    """The frequency variant's mask: the released loop over positions against one comparison. Results are equal."""
    codes, grid = given["codes"], given["size"] // 4
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(0, codes, (given["batch"], grid, grid), generator=draw).to(device)
    z_e, z_q = (naive.normal(given["batch"], given["width"], grid, grid, seed=seed).to(device) for seed in (0, 1))
    kept = naive.kept_codes(indices, codes, codes * 4 // 5)
    names = set(kept.nonzero().flatten().tolist())
    works = {
        "loop over positions": lambda: naive.mask_by_positions(indices, z_q, z_e, names),
        "one comparison": lambda: naive.mask_at_once(indices, z_q, z_e, kept),
    }
    first, second = (work() for work in works.values())
    if not torch.equal(first, second):
        raise AssertionError("the two ways of masking differ")
    turns = {name: (lambda work=work: measure.timed(work, device)) for name, work in works.items()}
    return {**given, "rounds": rounds, "seconds": measure.in_turn(turns, rounds)}


def measured(device: torch.device, small: bool) -> dict[str, Any]:
    gpu = device.type == "cuda"
    plan = [(measure.setting(width=64), 20 if gpu else 7), (measure.setting(), 20 if gpu else 7)]
    if small:
        plan = [(measure.setting(8, 16, 4, 512), 2)]
    variants = fitting(plan[0][0]["codes"])
    if small:
        variants = {name: variants[name] for name in (REFERENCE, "vq", "projected")}
    return {
        "reference": REFERENCE,
        "steps": [steps_in_turn(given, variants, device, rounds) for given, rounds in plan],
        "alone": [alone(given, variants, device, 3 * rounds) for given, rounds in plan],
        "masks": masks(plan[-1][0], device, plan[-1][1]),
    }
