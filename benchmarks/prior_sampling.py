"""How fast new images are drawn from a prior: 64 images of 8 x 8 codes of an alphabet of 512.

Cached state (what ``sample`` does) against a whole forward pass for every position, at the sizes of the experiments.
Weights are random, which changes no time. Both draw the same in float64, which is checked first on a few images. Times
are processor seconds of one thread, the best of several rounds in turns, so that other work disturbs them little.
"""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.uncached import Uncached
from vqlib.priors import make_network
from vqlib.priors.codes import CodePrior
from vqlib.priors.latents import Layout
from vqlib.priors.reals import RealPrior

IMAGES, CHECKED, SHAPE, CODES = 64, 4, (8, 8), 512
SIZES = {"pixelcnn": [(15, 64), (3, 32)], "transformer": [(6, 128), (4, 64)]}  # layers, channels
GAINS = (4, 64)
ROUNDS = 3


def rivals(prior: CodePrior | RealPrior) -> dict[str, CodePrior | RealPrior]:
    """The prior as it is, and the same weights without cached state."""
    other = copy.deepcopy(prior)
    other.network = Uncached(other.network)
    return {"cached": prior, "whole passes": other}


def draw_codes(prior: CodePrior, images: int) -> torch.Tensor:
    return prior.sample(None, images, 1.0, torch.Generator().manual_seed(0))


def draw_gains(prior: RealPrior, images: int) -> torch.Tensor:
    symbols = torch.randint(CODES, (images, *SHAPE, 1), generator=torch.Generator().manual_seed(1))
    return prior.sample(symbols, None, 1.0, torch.Generator().manual_seed(0))


def seconds(prior: CodePrior | RealPrior, draw: Callable) -> dict[str, float]:
    """Processor seconds of ``IMAGES`` images, best of ``ROUNDS``, by rival. Raises AssertionError: other samples."""
    exact = rivals(copy.deepcopy(prior).double())
    one, two = (draw(rival, CHECKED) for rival in exact.values())
    assert torch.allclose(one.double(), two.double(), atol=1e-9), "cached state draws other samples"
    best = dict.fromkeys(exact, float("inf"))
    for _ in range(ROUNDS):
        for name, rival in rivals(prior).items():
            start = time.process_time()
            draw(rival, IMAGES)
            best[name] = min(best[name], time.process_time() - start)
    return best


def measured(device: torch.device, small: bool) -> dict[str, Any]:
    """One row per prior, on one thread of the CPU whatever the device."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [{"prior": name, "seconds": seconds(*rest)} for name, *rest in priors(small)]
    finally:
        torch.set_num_threads(threads)
    return {"images": IMAGES, "shape": SHAPE, "codes": CODES, "rounds": ROUNDS, "rows": rows}


def priors(small: bool) -> Iterator[tuple[str, CodePrior | RealPrior, Callable]]:
    """Name, network and how it draws; the smallest alone where ``small``."""
    for name, sizes in SIZES.items():
        for layers, channels in sizes if not small else [(1, 4)]:
            prior = CodePrior(make_network(name, channels, layers, SHAPE), channels, (CODES,), 1).eval()
            yield f"{name}, {layers} layers, {channels} channels", prior, draw_codes
    layers, channels = GAINS if not small else (1, 4)
    layout = Layout((CODES,), SHAPE, 1, False)
    gains = RealPrior(make_network("pixelcnn", channels, layers, SHAPE), channels, layout, 1).eval()
    yield f"gains given codes, {layers} layers, {channels} channels", gains, draw_gains
