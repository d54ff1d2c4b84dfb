"""Where the work runs, and in which precision: chosen here and nowhere else."""

import os
import platform
from pathlib import Path

import torch

from vqlib.errors import DeviceError


def pick_device(asked: str) -> torch.device:
    """``auto`` takes the GPU where there is one. Raises DeviceError rather than fall back silently."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise DeviceError("training.device is 'cuda', but torch finds no CUDA device here; it may be auto or cpu")
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def pick_precision(asked: str, device: torch.device) -> torch.dtype:
    """``auto`` takes bfloat16 for the networks where the device computes in it natively, else float32."""
    if asked == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = _cpu_flags() & {"amx_bf16", "avx512_bf16"}
        asked = "bfloat16" if native else "float32"
    return getattr(torch, asked)


def make_deterministic() -> None:
    """The same bits from the same start (same machine, device, torch and thread count), and float32 that is float32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a guard against bugs, for 5 % of a step on a CPU
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # on by default: convolutions of float32 would keep 10 bits of 23
    torch.set_float32_matmul_precision("highest")


def describe_hardware(device: torch.device) -> str:
    """What stands in every result: the GPU's name, or the number of CPU threads and the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    name = _cpuinfo().get("model name") or platform.processor() or "a CPU"
    return f"{threads} thread{'s' if threads > 1 else ''} of {name}"


def _cpu_flags() -> set[str]:
    return set(_cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return {}
    first = file.read_text().split("\n\n")[0]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
