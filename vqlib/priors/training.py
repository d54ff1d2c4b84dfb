"""Training a prior: one loop, read top to bottom, for every network.

As in ``vqlib.training``, the state after step s is a function of (parameters, data, s), so a run that resumes ends with
the bits of one that never stopped.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vqlib.checkpoints import State
from vqlib.errors import DivergedError
from vqlib.params import PriorNetwork
from vqlib.priors.latents import Latents
from vqlib.training import batch_indices, below_of, optimizer_tensors, restore_optimizer

NATS_TO_BITS = 1 / math.log(2)
LARGEST_GRADIENT = 1.0  # norm at which gradients are clipped


class Trained(NamedTuple):
    weights: dict[str, Tensor]  # the best by validation bits
    best_step: int
    history: list[dict[str, Any]]  # rows: step, split, bits


def train_prior(
    prior: nn.Module,
    train: Latents,
    validation: Latents,
    budget: PriorNetwork,
    batch_size: int,
    log_every: int,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    resume: State | None = None,
    save: Callable[[State], None] = lambda state: None,
    progress: Callable[[int, str], None] = lambda step, note: None,
) -> Trained:
    """Train ``prior`` in place and return its best weights and its history.

    ``prior.nats(latents)`` gives a batch's negative log-likelihood and the number of positions or reals it is spread
    over. Adam, its rate going to zero along a cosine. Every ``log_every`` steps and at the end come a row of either
    split and a checkpoint. ``batch_size`` is at most the number of training images.

    Raises:
        DivergedError: the likelihood of training or validation is not finite.
    """
    batch_size = min(batch_size, len(train))
    prior.to(device)
    optimizer = torch.optim.Adam(prior.parameters(), lr=budget.learning_rate)
    history, best_step, best_bits, done = [], 0, math.inf, 0
    best = {key: value.clone() for key, value in prior.state_dict().items()}
    since = torch.zeros(2, dtype=torch.float64, device=device)  # bits and positions since the last row
    if resume is not None:
        done, history, best_step, best_bits = resume.step, *resume.record
        restore(resume.tensors, prior, optimizer, best, since)

    for step in range(done, budget.steps):
        batch = train.at(batch_indices(step, len(train), batch_size, seed), device)
        prior.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            nats, count = prior.nats(batch)
        optimizer.zero_grad(set_to_none=True)
        (nats / count).backward()
        nn.utils.clip_grad_norm_(prior.parameters(), LARGEST_GRADIENT)
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate * (1 + math.cos(math.pi * step / budget.steps)) / 2
        optimizer.step()
        since += torch.stack([nats.detach().double() * NATS_TO_BITS, torch.tensor(count, device=device).double()])

        done = step + 1
        if done % log_every == 0 or done == budget.steps:
            rows = {"train": float(since[0] / since[1]), "validation": mean_bits(prior, validation, device)}
            since.zero_()
            if not all(map(math.isfinite, rows.values())):
                raise DivergedError(f"a prior's likelihood is not finite at step {done} of {budget.steps}; its "
                                    f"learning_rate is {budget.learning_rate:g}, a smaller one may help")  # fmt: skip
            history += [{"step": done, "split": split, "bits": bits} for split, bits in rows.items()]
            progress(done, f"validation {rows['validation']:.4g} bits")
            if rows["validation"] < best_bits:
                best_step, best_bits = done, rows["validation"]
                best = {key: value.clone() for key, value in prior.state_dict().items()}
            save(State(done, snapshot(prior, optimizer, best, since), [history, best_step, best_bits]))

    return Trained(best, best_step, history)


@torch.no_grad()
def mean_bits(prior: nn.Module, latents: Latents, device: torch.device, batch_size: int = 250) -> float:
    """Bits per position or real over all latents, in float32."""
    prior.eval()
    total, places = 0.0, 0
    for batch in latents.in_order(batch_size, device):
        nats, count = prior.nats(batch)
        total, places = total + float(nats), places + count
    return total * NATS_TO_BITS / places


def snapshot(prior: nn.Module, optimizer: torch.optim.Adam, best: dict[str, Tensor], since: Tensor) -> dict:
    """Everything that the next step depends on, as flat tensors."""
    tensors = {f"prior/{key}": value for key, value in prior.state_dict().items()}
    tensors |= {f"best/{key}": value for key, value in best.items()}
    tensors |= {f"optimizer/{key}": value for key, value in optimizer_tensors(optimizer).items()}
    tensors["since"] = since
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def restore(tensors: dict, prior: nn.Module, optimizer: torch.optim.Adam, best: dict, since: Tensor) -> None:
    """Put a snapshot back."""
    prior.load_state_dict(below_of(tensors, "prior"))
    for key, value in below_of(tensors, "best").items():
        best[key].copy_(value)
    restore_optimizer(optimizer, below_of(tensors, "optimizer"))
    since.copy_(tensors["since"])
