"""Whether a bottleneck keeps its contract (vqlib.bottlenecks), asked before it is trained rather than found out after.

What it looks at cannot be seen in a training that runs: how the model is evaluated, kept in a file and given a prior,
and whether the encoder learns from what the decoder sees.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor, nn

from vqlib.bottlenecks import make_bottleneck
from vqlib.errors import ParameterError
from vqlib.model import make_model
from vqlib.params import Network, Variant

GRIDS = ((2, 3), (5, 2))  # latents of these sizes are tried; evaluation and priors try others than the images' too
IMAGES, STEPS = 3, 4
TORCH = Path(torch.__file__).parent
# Columns of the log (vqlib.training) that no statistic may replace, beside the losses.
LOGGED = {"step", "epoch", "split", "recon_loss", "recon_loss_max", "grad_norm", "grad_norm_max", "perplexity"}


def check_bottleneck(network: Network, variant: Variant) -> None:
    """Try a variant's bottleneck, as it is before training, on random latents. torch's generators stay as they were.

    Raises:
        ParameterError: an option is out of its range, or the bottleneck does not keep the contract.
    """
    file = f"vqlib/bottlenecks/{variant.bottleneck}.py"

    def holds(condition: bool, otherwise: str) -> None:
        if not condition:
            raise ParameterError(f"{file}: {otherwise}; vqlib/bottlenecks/__init__.py has the contract")

    with torch.random.fork_rng(devices=[]), _errors_in_one_line(file):
        torch.default_generator.manual_seed(0)
        model = make_model(network, variant)
        bottleneck = model.bottleneck.eval()
        for name in ("compress", "decompress", "begin", "statistics", "alphabets"):
            holds(hasattr(bottleneck, name), f"Bottleneck has no {name}")
        sizes = bottleneck.alphabets
        holds(isinstance(sizes, tuple | list) and all(isinstance(size, int) and size > 0 for size in sizes),
              f"alphabets must be a tuple of whole numbers, each above 0, not {sizes!r}")  # fmt: skip
        for grid in GRIDS:
            with torch.no_grad():
                _check_on(bottleneck, torch.randn(IMAGES, network.width, *grid), holds)
        _check_statistics(bottleneck, _check_training(model, network.width, holds), holds)
        try:
            with torch.device("meta"):
                make_model(network, variant)
        except (RuntimeError, NotImplementedError) as error:
            holds(False, f"__init__ must work without values, on the device meta, to read a model's file ({error})")


@contextmanager
def _errors_in_one_line(file: str) -> Iterator[None]:
    """An error in the bottleneck's file, or in calling it, as a ParameterError that names the line there; any other as
    it is. What torch's code raises counts as raised where torch was called."""
    try:
        yield
    except ParameterError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).as_posix().endswith(file)]
        caller = [frame for frame in frames if not Path(frame.filename).is_relative_to(TORCH)][-1]
        if not lines and caller.filename != __file__ and caller.name != make_bottleneck.__name__:
            raise
        where, said = f"{file}, line {lines[-1]}" if lines else file, " ".join(str(error).split())
        raise ParameterError(f"{where}: {type(error).__name__}: {said}") from error


def _check_training(model: nn.Module, width: int, holds: Callable[[bool, str], None]) -> set[str]:
    """In training the decoder's gradient must reach the encoder, in one of a few steps: a warm-up may hold it back. The
    model is begun and left in training mode.

    Returns:
        The names of its losses.
    """
    bottleneck = model.train().bottleneck
    bottleneck.begin(STEPS)
    reached, names = False, set()
    for _ in range(STEPS):
        start = torch.randn(IMAGES, width, *GRIDS[-1], requires_grad=True)
        z_e = start * 1.0  # as the encoder's output is: no leaf
        z, losses, _ = _forward(bottleneck, z_e, f"in training on latents of {tuple(z_e.shape)}", holds)
        names |= losses.keys()
        if z.requires_grad:
            found = torch.autograd.grad((z * torch.randn_like(z)).sum(), start, allow_unused=True)[0]
            reached = reached or found is not None
    holds(
        reached,
        "forward must let the decoder's gradient through to z_e in training, and none arrives (see straight_through)",
    )
    return names


def _check_statistics(bottleneck: nn.Module, losses: set[str], holds: Callable[[bool, str], None]) -> None:
    """Single numbers under names of their own, whether or not codes were counted."""
    counted = [torch.ones(size, dtype=torch.int64) for size in bottleneck.alphabets[:1]]
    for counts in (*counted, None):
        tried = f"statistics({'counts' if counts is not None else None})"
        found = bottleneck.statistics(counts)
        holds(isinstance(found, dict), f"{tried} must give a dict, not {_said(found)}")
        for name, value in found.items():
            holds(isinstance(name, str) and name not in LOGGED | losses,
                  f"{name!r} may not name a statistic: it must be text, and no other column of the log")  # fmt: skip
            single = isinstance(value, Tensor) and value.dim() == 0 and not value.is_complex()
            holds(single or isinstance(value, Real), f"{name} of {tried} must be one number, not {_said(value)}")


def _forward(
    bottleneck: nn.Module, z_e: Tensor, tried: str, holds: Callable[[bool, str], None]
) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """What ``forward`` gives, once it is three things of which the first two are in order."""
    given = bottleneck(z_e)
    holds(isinstance(given, tuple | list) and len(given) == 3,
          f"forward {tried} must give z, losses and indices, not {_said(given)}")  # fmt: skip
    z, losses, indices = given
    holds(isinstance(z, Tensor) and z.shape == z_e.shape and z.dtype == z_e.dtype,
          f"forward {tried} must give z of the same shape and type, not {_said(z)}")  # fmt: skip
    holds(bool(z.isfinite().all()), f"forward {tried} gives numbers that are not finite")
    holds(isinstance(losses, dict), f"losses of forward {tried} must be a dict, not {_said(losses)}")
    for name, value in losses.items():
        holds(isinstance(name, str) and name.endswith("_loss") and name != "recon_loss",
              f"{name!r} may not name a loss; it must end in _loss, and recon_loss is the model's own")  # fmt: skip
        holds(isinstance(value, Tensor) and value.dim() == 0, f"{name} must be one number, not {_said(value)}")
    return z, losses, indices


def _check_on(bottleneck: nn.Module, z_e: Tensor, holds: Callable[[bool, str], None]) -> None:
    shape, alphabets = tuple(z_e.shape), bottleneck.alphabets
    tried = f"on latents of {shape}"
    z, _, indices = _forward(bottleneck, z_e, tried, holds)
    kept = bottleneck.compress(z_e)
    holds(isinstance(kept, tuple | list) and len(kept) == 2,
          f"compress {tried} must give indices and continuous, not {_said(kept)}")  # fmt: skip
    stored, continuous = kept
    for name, codes in (("forward", indices), ("compress", stored)):
        if codes is None:
            holds(not alphabets, f"{name} {tried} gives no indices, so alphabets must be (), not {tuple(alphabets)}")
            continue
        holds(isinstance(codes, Tensor) and codes.dtype == torch.int64 and codes.dim() in (3, 4)
              and codes.shape[:3] == (shape[0], *shape[2:]),
              f"indices of {name} {tried} must be int64 of (B, h, w) or (B, h, w, Q), not {_said(codes)}")  # fmt: skip
        symbols = codes if codes.dim() == 4 else codes.unsqueeze(-1)
        holds(symbols.shape[-1] == len(alphabets),
              f"indices of {name} have {symbols.shape[-1]} symbols a position, alphabets {len(alphabets)}")  # fmt: skip
        for number, (symbol, size) in enumerate(zip(symbols.unbind(-1), alphabets, strict=True)):
            least, most = int(symbol.min()), int(symbol.max())
            holds(least >= 0 and most < size,
                  f"symbol {number} of {name} is from {least} to {most}, its alphabet has {size}")  # fmt: skip
    holds(
        continuous is None
        or (isinstance(continuous, Tensor) and continuous.is_floating_point() and continuous.shape[:1] == shape[:1]),
        f"what compress keeps as continuous must be None or floats, one entry an image, not {_said(continuous)}",
    )
    back = bottleneck.decompress(stored, continuous)
    holds(isinstance(back, Tensor) and back.shape == z.shape and back.dtype == z.dtype
          and torch.allclose(back, z, rtol=1e-5, atol=1e-6),
          "decompress must give back what forward lets through in eval mode")  # fmt: skip


def _said(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
