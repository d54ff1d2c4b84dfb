"""Several processes that train one run together, one device each: torchrun's process group, and what goes through it.

``python -m vqlib train EXPERIMENT RUN`` starts them by itself on one machine when ``training.devices`` asks for more
than one (``vqlib.launch``). Options of torchrun after it spread them over several machines, the same command on each::

    python -m vqlib train EXPERIMENT RUN --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:PORT

A batch is cut into equal parts in the order of its images, and every sum over a batch (gradients, losses, code counts,
batch-norm statistics, what a bottleneck keeps) goes over all processes, so a result does not depend on their number,
except for the order in which floating-point numbers are added. Outside a process group all of this does nothing.
"""

import contextlib
import ctypes
import datetime
import os
import signal
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = datetime.timedelta(minutes=10)  # a process that waits longer for another one gives up


def size() -> int:
    """How many processes there are; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0. The first alone writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and "LOCAL_RANK" in os.environ


@contextlib.contextmanager
def joined(kind: str) -> Iterator[torch.device]:
    """This process's device of ``kind`` (``cpu`` or ``cuda``), inside torchrun's process group where there is one."""
    if not started_by_torchrun() or dist.is_initialized():
        yield torch.device(kind)
        return
    end_with_parent()
    device = torch.device("cpu")
    if kind == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def end_with_parent() -> None:
    """Ask the kernel (Linux) for SIGTERM when the parent dies, so that no process trains on alone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG


@torch.no_grad()
def summed(values: Tensor) -> Tensor:
    """The sum of ``values`` over all processes, without a gradient; ``values`` itself where there is one."""
    if size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def added(rows: dict[str, float]) -> dict[str, float]:
    """Sums over all processes of float64 numbers by name. A process may lack a name."""
    if size() == 1:
        return rows
    everywhere: list[dict] = [{}] * size()
    dist.all_gather_object(everywhere, rows)
    names = {name: None for row in everywhere for name in row}  # in order of appearance, the same in each process
    return {name: sum(row.get(name, 0.0) for row in everywhere) for name in names}


def shared(value: Any) -> Any:
    """What the first process passes, in all of them; a tensor travels by way of the CPU."""
    if size() == 1:
        return value
    box = [value if rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def part_of(batch: Tensor) -> Tensor:
    """This process's equal part of a whole batch (B, ...), in order."""
    return batch.chunk(size())[rank()]


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` with gradients averaged over the processes; it must have synchronised batch norm (``synchronise``)."""
    if size() == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():  # newer versions of torch have another name for broadcast_buffers
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """Batch norm over the whole batch, not over each process's part of it; names and values of the state stay.

    Else the normalisation would depend on the number of processes. torch's SyncBatchNorm where it works, which is on
    GPUs, else ``SynchronisedBatchNorm2d``.
    """
    if size() == 1:
        return model
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d  # the same parameters and buffers, another forward
    return model


class _Sum(torch.autograd.Function):
    """``summed`` with a gradient, which is the sum of the processes' gradients."""

    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        return summed(values)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return summed(gradient)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of (B, C, H, W) with mean and variance over the parts of all processes, for the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or size() == 1:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        values = x.numel() // x.shape[1] * size()  # behind one mean; parts are of equal size
        mean = _Sum.apply(wide.sum(dim=(0, 2, 3))) / values  # (C,)
        centred = wide - mean.view(1, -1, 1, 1)
        variance = _Sum.apply(centred.square().sum(dim=(0, 2, 3))) / values
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        y = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)
