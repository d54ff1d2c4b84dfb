"""How fast new images are drawn from a prior: ``python -m benchmarks.prior_sampling``. No data needed.

Prints a table and writes it to benchmarks/prior_sampling.md: 64 images of 8 x 8 codes of an alphabet of 512, with
cached state (what ``sample`` does) against a whole forward pass for every position, at the sizes of the experiments.
Weights are random, which changes no time. Both draw the same in float64, which is checked first on a few images. Times
are processor seconds of one thread, the best of several rounds in turns, so that other work disturbs them little.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.uncached import Uncached
from vqlib.device import describe_hardware
from vqlib.priors import make_network
from vqlib.priors.codes import CodePrior
from vqlib.priors.latents import Layout
from vqlib.priors.reals import RealPrior

IMAGES, CHECKED, SHAPE, CODES = 64, 4, (8, 8), 512
SIZES = {"pixelcnn": [(15, 64), (3, 32)], "transformer": [(6, 128), (4, 64)]}  # layers, channels
GAINS = (4, 64)
ROUNDS = 3
TABLE = Path(__file__).with_suffix(".md")


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


def table() -> str:
    rows = []
    for name, sizes in SIZES.items():
        for layers, channels in sizes:
            prior = CodePrior(make_network(name, channels, layers, SHAPE), channels, (CODES,), 1).eval()
            rows.append((f"{name}, {layers} layers, {channels} channels", seconds(prior, draw_codes)))
    layers, channels = GAINS
    layout = Layout((CODES,), SHAPE, 1, False)
    gains = RealPrior(make_network("pixelcnn", channels, layers, SHAPE), channels, layout, 1).eval()
    rows.append((f"gains given codes, {layers} layers, {channels} channels", seconds(gains, draw_gains)))
    head = (
        f"{IMAGES} images of {SHAPE[0]} x {SHAPE[1]} codes out of {CODES}, float32, "
        f"{describe_hardware(torch.device('cpu'))}, torch {torch.__version__}, processor seconds. A whole pass covers "
        "all positions, but its output layer the one position alone that is drawn."
    )
    lines = ["| prior | cached | whole passes | ratio |", "|---|--:|--:|--:|"]
    for name, best in rows:
        ratio = best["whole passes"] / best["cached"]
        lines.append(f"| {name} | {best['cached']:.2f} | {best['whole passes']:.2f} | {ratio:.0f} |")
    return "\n".join(["# Drawing new codes from a prior", "", head, "", *lines]) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    text = table()
    TABLE.write_text(text)
    print(text)
