"""Training: one loop, read top to bottom, for every variant.

The state after step s is a function of (parameters, data, s): initial weights, data order and every draw come from
generators seeded by (seed, epoch, purpose), so a run that resumes ends with the same bits as one that never stopped.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqlib import distributed
from vqlib.batches import Images
from vqlib.checkpoints import State
from vqlib.data.reader import Split
from vqlib.errors import DataError, DivergedError, ParameterError
from vqlib.model import VQVAE, make_model
from vqlib.params import Experiment, Run, Training, nearest
from vqlib.quantize import code_counts, perplexity

COLUMNS = (
    "step", "epoch", "split", "recon_loss", "commitment_loss", "codebook_loss", "projection_loss", "perplexity",
    "recon_loss_max", "grad_norm", "grad_norm_max", "smallest_code_norm", "smallest_used_code_norm",
)  # fmt: skip
DATA_ORDER, DRAWS = 1, 2  # purposes, see seed_of


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and has saved where it is."""


class Trained(NamedTuple):
    weights: dict[str, Tensor]  # the best by validation recon_loss
    best_step: int
    history: list[dict[str, Any]]  # rows with (at least) the keys COLUMNS that exist for the variant


def seed_of(*numbers: int) -> int:
    """A seed that depends on all the numbers (run's seed, epoch or step, purpose) and on nothing else."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batch_indices(step: int, images: int, batch_size: int, seed: int) -> Tensor:
    """Which images step ``step`` (from 0) sees: each epoch is a new permutation without its last, smaller batch."""
    epoch, place = divmod(step, images // batch_size)
    order = _epoch_order(epoch, images, seed)
    return order[place * batch_size : (place + 1) * batch_size]


@functools.lru_cache(maxsize=1)
def _epoch_order(epoch: int, images: int, seed: int) -> Tensor:
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed_of(seed, epoch, DATA_ORDER)))


def train(
    experiment: Experiment,
    run: Run,
    train_split: Split,
    validation_split: Split,
    device: torch.device,
    precision: torch.dtype,
    resume: State | None = None,
    save: Callable[[State], None] = lambda state: None,
    progress: Callable[[int, str], None] = lambda step, note: None,
    to_stop: Callable[[], bool] = lambda: False,
    model: VQVAE | None = None,
) -> Trained:
    """Train one run and return its best weights and its history.

    The model is the run's own, from ``make_model``, unless one is given (which is then trained in place).
    ``save`` gets a checkpoint every ``checkpoint_every`` steps, to write before it returns (its tensors are the live
    ones), and ``resume`` takes one; ``progress`` gets (steps done, a note) at every log interval. Between two intervals
    nothing waits for the device. When ``to_stop`` says so in any process, the run saves and ends after the step at
    hand.

    In a process group (``vqlib.distributed``) each process computes its part of every batch, all of them return the
    same, and the first alone saves. float64 as ``precision`` is for tests.

    Raises:
        DataError: fewer training images than one batch.
        ParameterError: ``weights`` of the variant names a loss that its bottleneck does not have; the batch cannot be
            divided by the number of processes.
        DivergedError: loss or gradients stopped being finite; names the first such step.
        Stopped: ``to_stop`` said so.
    """
    budget = experiment.training
    images, held_out = Images(train_split, device), Images(validation_split, device)
    epoch_steps = len(images) // budget.batch_size
    if epoch_steps == 0:
        raise DataError(
            f"training.batch_size is {budget.batch_size}; it may be at most the {len(images)} images of train"
        )

    refuse_uneven_parts(budget, distributed.size())

    model = (model or make_model(experiment.network, run.variant, run.seed)).to(device)
    if precision == torch.float64:
        model = model.double()
    model = distributed.synchronise(model, device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=run.learning_rate, fused=True)
    interval = Interval(model, device)
    history, best_step, best_loss, done = [], 0, float("inf"), 0
    model.bottleneck.begin(budget.steps)
    best = {key: value.clone() for key, value in model.state_dict().items()}
    if resume is not None:
        done, history, best_step, best_loss = resume.step, *resume.record
        restore(resume.tensors, model, optimizer, best, interval)
    forward = distributed.parallel(model, device)

    for step in range(done, budget.steps):
        torch.manual_seed(seed_of(run.seed, step, DRAWS))  # for bottlenecks that draw
        indices = batch_indices(step, len(images), budget.batch_size, run.seed)
        x = images.batch(distributed.part_of(indices)).to(parameters[0].dtype)

        model.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            output = forward(x)
        if unknown := run.variant.weights.keys() - output.losses.keys():
            raise ParameterError(f"params.yaml: variants.{run.variant.name}.weights: {min(unknown)!r} is no loss of it"
                                 f"{nearest(min(unknown), output.losses)}")  # fmt: skip
        loss = sum(run.variant.weights.get(key, 1.0) * value for key, value in output.losses.items())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
        optimizer.step()
        interval.add(step + 1, output.losses, grad_norm, output.indices)

        done = step + 1
        last, epoch_ends, to_save = done == budget.steps, done % epoch_steps == 0, done % budget.checkpoint_every == 0
        to_log = last or done % budget.log_every == 0
        to_end = stop_agreed(to_stop)
        if (to_log or epoch_ends or to_save or to_end) and interval.first_bad():
            raise diverged(run, budget, interval, model, len(images), interval.first_bad())
        if to_log:
            row = {"step": done, "epoch": step // epoch_steps + 1, "split": "train", **interval.means(model)}
            history.append(row)
            progress(done, f"train error {row['recon_loss']:.4g}")
        if last or epoch_ends:
            row = {"step": done, "epoch": step // epoch_steps + 1, "split": "validation", **validate(model, held_out)}
            history.append(row)
            if not math.isfinite(row["recon_loss"]):
                raise diverged(run, budget, interval, model, len(images), done)
            if row["recon_loss"] < best_loss:
                best_step, best_loss = done, row["recon_loss"]
                best = {key: value.clone() for key, value in model.state_dict().items()}
        if (to_save or to_end) and not last:
            if distributed.rank() == 0:
                save(State(done, snapshot(model, optimizer, best, interval), [history, best_step, best_loss]))
            if to_end:
                distributed.shared(None)  # none leaves before the first has saved: torchrun then ends the others
                raise Stopped(f"{run.name}: stopped and saved after step {done:,} of {budget.steps:,}")

    return Trained(best, best_step, history)


def refuse_uneven_parts(budget: Training, processes: int) -> None:
    """Raises ParameterError unless a batch can be cut into one equal part for each process."""
    if budget.batch_size % processes:
        raise ParameterError(f"training.batch_size is {budget.batch_size}; with {processes} processes "
                             f"(training.devices or VQLIB_DEVICES) it must be a multiple of {processes}")  # fmt: skip


class Interval:
    """Sums over the steps since the last row, kept on the device so that no step waits for them.

    Where several symbols describe a position, codes are counted by the first. Every process has the same sums.
    """

    def __init__(self, model: VQVAE, device: torch.device):
        alphabets = model.bottleneck.alphabets
        self.tensors = {
            "counts": torch.zeros(alphabets[0] if alphabets else 0, dtype=torch.int64, device=device),
            "bad": torch.zeros((), dtype=torch.int64, device=device),  # the first step that was not finite, 0 for none
        }
        self.start()

    def start(self) -> None:
        """Begin a new interval."""
        self.steps = 0
        self.tensors["counts"].zero_()
        self.tensors = {key: self.tensors[key] for key in ("counts", "bad")}

    @torch.no_grad()
    def add(self, step: int, losses: dict[str, Tensor], grad_norm: Tensor, indices: Tensor | None) -> None:
        # a process's losses are means over its part of the batch; all parts are of one size
        numbers = distributed.summed(torch.stack([*losses.values(), grad_norm]).detach().double()) / distributed.size()
        values = dict(zip([*losses, "grad_norm"], numbers.unbind(), strict=True))
        for key, value in values.items():
            self._update(key, value, torch.add)
        for key in ("recon_loss", "grad_norm"):
            self._update(f"{key}_max", values[key], torch.maximum)
        finite = torch.isfinite(numbers).all()
        self.tensors["bad"] = torch.where(finite | (self.tensors["bad"] > 0), self.tensors["bad"], step)
        if indices is not None:
            self.tensors["counts"] += distributed.summed(code_counts(indices, len(self.tensors["counts"])))
        self.steps += 1

    def _update(self, key: str, value: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.tensors[key] = combine(self.tensors[key], value) if key in self.tensors else value.clone()

    def first_bad(self) -> int:
        return int(self.tensors["bad"])

    def means(self, model: VQVAE) -> dict[str, float]:
        """The row of this interval, with the statistics of the bottleneck now; begins the next interval."""
        row = {
            key: float(value) / (1 if key.endswith("_max") else self.steps)
            for key, value in self.tensors.items()
            if key not in ("counts", "bad")
        }
        if len(self.tensors["counts"]):
            row["perplexity"] = float(perplexity(self.tensors["counts"]))
        row |= statistics(model, self.tensors["counts"])
        self.start()
        return row


def diverged(run: Run, budget: Training, interval: Interval, model: VQVAE, images: int, step: int) -> DivergedError:
    """The error that ends a run whose numbers are not finite since ``step``; its ``report`` says all that is known."""
    report = {
        "run": run.name,
        "first_bad_step": step,
        "steps": budget.steps,
        "learning_rate": run.learning_rate,
        "batch": batch_indices(step - 1, images, budget.batch_size, run.seed).tolist(),
        "sums_since_last_row": {
            key: str(float(v)) for key, v in interval.tensors.items() if key not in ("counts", "bad")
        },
        "codes_used_since_last_row": int((interval.tensors["counts"] > 0).sum()),
        "statistics_now": {key: str(value) for key, value in statistics(model, interval.tensors["counts"]).items()},
    }
    error = DivergedError(f"{run.name}: loss or gradients are not finite since step {step} of {budget.steps}; "
                          f"training.learning_rate is {run.learning_rate:g}, a smaller one may help")  # fmt: skip
    error.report = report
    return error


def statistics(model: VQVAE, counts: Tensor) -> dict[str, float]:
    found = model.bottleneck.statistics(counts if len(counts) else None)
    return {key: float(value) for key, value in found.items()}


def stop_agreed(to_stop: Callable[[], bool]) -> bool:
    """Whether any process was asked to stop: the same answer in all. On the CPU, so that none waits for its GPU."""
    asked = to_stop()
    return asked if distributed.size() == 1 else bool(distributed.summed(torch.tensor(float(asked))))


@torch.no_grad()
def validate(model: VQVAE, images: Images, batch_size: int = 256) -> dict[str, float]:
    """Losses over all images, means over every element, in float32 and eval mode; perplexity of all their codes.

    Whole batches are dealt to the processes in turn.
    """
    model.eval()
    dtype = next(model.parameters()).dtype
    size = model.bottleneck.alphabets[0] if model.bottleneck.alphabets else 0
    sums: dict[str, float] = {}
    counts = torch.zeros(size, dtype=torch.int64, device=images.device)
    for x in images.in_order(batch_size, distributed.rank(), distributed.size()):
        output = model(x.to(dtype))
        for key, value in output.losses.items():
            sums[key] = sums.get(key, 0.0) + float(value) * len(x)
        if output.indices is not None:
            counts += code_counts(output.indices, size)
    row = {key: value / len(images) for key, value in distributed.added(sums).items()}
    counts = distributed.summed(counts)
    return {**row, "perplexity": float(perplexity(counts))} if size else row


def snapshot(
    model: VQVAE, optimizer: torch.optim.Adam, best: dict[str, Tensor], interval: Interval
) -> dict[str, Tensor]:
    """Everything that the next step depends on, as flat tensors."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"best/{key}": value for key, value in best.items()}
    tensors |= {f"interval/{key}": value for key, value in interval.tensors.items()}
    tensors["interval_steps"] = torch.tensor(interval.steps)
    tensors |= {f"optimizer/{key}": value for key, value in optimizer_tensors(optimizer).items()}
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def restore(
    tensors: dict[str, Tensor], model: VQVAE, optimizer: torch.optim.Adam, best: dict[str, Tensor], interval: Interval
) -> None:
    """Put a snapshot back. The memory layout of every tensor stays what it is in an uninterrupted run."""
    below = {part: below_of(tensors, part) for part in ("model", "best", "interval", "optimizer")}
    model.load_state_dict(below["model"])
    for key, value in below["best"].items():
        best[key].copy_(value)
    device = interval.tensors["bad"].device
    interval.tensors = {key: value.to(device) for key, value in below["interval"].items()}
    interval.steps = int(tensors["interval_steps"])
    restore_optimizer(optimizer, below["optimizer"])


def optimizer_tensors(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Its state by "<number of the parameter>/<name>"."""
    states = optimizer.state_dict()["state"]
    return {f"{index}/{key}": value for index, state in states.items() for key, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Put ``optimizer_tensors`` back. A fused optimizer counts its steps on the device, another one on the CPU."""
    parameters = [(p, bool(group["fused"])) for group in optimizer.param_groups for p in group["params"]]
    for path, value in tensors.items():
        index, key = path.split("/")
        parameter, fused = parameters[int(index)]
        count = torch.zeros((), device=parameter.device if fused else "cpu")
        like = count if value.dim() == 0 else torch.empty_like(parameter)
        optimizer.state[parameter][key] = like.copy_(value)


def below_of(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part of a snapshot, by their names inside it."""
    return {key.removeprefix(f"{part}/"): value for key, value in tensors.items() if key.startswith(f"{part}/")}
