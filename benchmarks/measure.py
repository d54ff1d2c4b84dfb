"""How things are measured: real calls of ``train`` that take turns, peak memory, a machine's matrix-multiply peak."""

import contextlib
import ctypes
import gc
import multiprocessing
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vqlib.data.reader import Split
from vqlib.device import describe_hardware, make_deterministic, pick_precision
from vqlib.model import VQVAE, make_model
from vqlib.params import Data, Experiment, Network, Run, Training, Variant, load_variants
from vqlib.training import Stopped, train

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PAPER_STEPS = 39_100  # of a run
TAIL = 2  # images of the validation split that train asks for


def setting(width: int = 256, size: int = 32, batch: int = 128, codes: int = 512, learning_rate: float = 2e-4) -> dict:
    """A size of training by its five numbers; those of the paper where none is given."""
    return {"width": width, "size": size, "batch": batch, "codes": codes, "learning_rate": learning_rate}


LITTLE = setting(width=8, size=16, batch=4, codes=16)  # what warms a process up


def experiment_of(given: dict, steps: int, log_every: int, device: torch.device, precision: str = "auto") -> Experiment:
    """The experiment that trains at ``given``, a ``setting``."""
    budget = {"steps": steps, "batch_size": given["batch"], "learning_rate": given["learning_rate"]}
    budget |= {"log_every": log_every, "checkpoint_every": 1_000_000, "device": device.type, "precision": precision}
    network = Network(width=given["width"], num_embeddings=given["codes"])
    data = Data(source="photos", image_size=given["size"])
    return Experiment(name="benchmark", title="Benchmark", data=data, network=network, training=Training(**budget))


def run_of(variant: Variant, experiment: Experiment, seed: int = 0) -> Run:
    rate = experiment.training.learning_rate
    return Run(name=f"{variant.name}-{seed}", variant=variant, seed=seed, learning_rate=rate)


def made_split(images: int, size: int, name: str = "train") -> Split:
    """Images (N, size, size, 3) of smooth random shapes, which compress about as photographs do."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (images, size // 4 + 1, size // 4 + 1, 3)).astype(np.float32)
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2)
    smooth = sum(fine[:, y : y + size, x : x + size] for y in range(4) for x in range(4)) / 16
    pixels = (smooth + draw.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
    pixels.flags.writeable = False  # as the prepared array is
    return Split(name, pixels, np.zeros(images, np.int64), ["n00000000"], "0" * 64)


class TakingTurns:
    """One call of ``vqlib.training.train`` that stands still except inside ``interval``.

    It is the real loop, not a copy: it runs in a thread, and the function that it reports its progress to holds it at
    every log interval. So several trainings can take turns, step by step, and what disturbs one disturbs all.
    """

    def __init__(
        self,
        given: dict,
        variant: Variant,
        split: Split,
        device: torch.device,
        steps: int = 1,
        precision: str = "auto",
        model: VQVAE | None = None,
    ):
        experiment = experiment_of(given, 1_000_000, steps, device, precision)
        self.given, self.variant, self.steps, self.device = given, variant, steps, device
        self.precision, self.model = pick_precision(precision, device), model
        self.go, self.stands, self.ending = threading.Semaphore(0), threading.Semaphore(0), False
        self.error: BaseException | None = None
        arguments = (experiment, run_of(variant, experiment), split, made_split(TAIL, given["size"]), device)
        self.threads = torch.get_num_threads()
        self.thread = threading.Thread(target=self._train, args=arguments, daemon=True)
        self.thread.start()

    def _train(self, *arguments) -> None:
        torch.set_num_threads(self.threads)  # each thread of Python has its own number
        self.go.acquire()
        self.start = time.perf_counter()
        try:
            train(*arguments, self.precision, progress=self._report, to_stop=lambda: self.ending, model=self.model)
        except Stopped:
            pass
        except BaseException as error:
            self.error = error  # for the thread that waits
        finally:
            self.stands.release()

    def _report(self, step: int, note: str) -> None:
        if self.ending:
            return
        self.seconds = time.perf_counter() - self.start  # train has read numbers from the device: it is idle
        self.stands.release()
        self.go.acquire()
        self.start = time.perf_counter()

    def interval(self) -> float:
        """Seconds per step over the next ``steps`` steps; in the first interval the model is made, too."""
        make_deterministic()
        self.go.release()
        self.stands.acquire()
        if self.error:
            raise self.error
        return self.seconds / self.steps

    def close(self) -> None:
        """End the training after one more step."""
        self.ending = True
        self.go.release()
        self.thread.join()


def in_turn(works: dict[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of every work in every round: A B A B ..., after ``warm_up`` rounds that are not counted.

    Every other round goes backwards, so that none always follows the same one.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm_up + rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            seconds = works[name]()
            if number >= warm_up:
                taken[name].append(seconds)
    return taken


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that ``work`` takes; on a GPU between two events."""
    if device.type == "cuda":
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        work()
        after.record()
        torch.cuda.synchronize(device)
        return before.elapsed_time(after) / 1000
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory_of(work: Callable[[], Any], device: torch.device) -> tuple[Any, int | None]:
    """What ``work`` returns, and the bytes that it takes at its peak beyond those held before.

    On the CPU by the kernel's account of this process (Linux; None elsewhere), on a GPU by torch's of its tensors.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        torch.cuda.synchronize(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    try:
        _give_back()
        CLEAR.write_text("5")  # sets the peak to what is held now
        before = _kilobytes("VmRSS")
    except OSError:
        return work(), None
    result = work()
    return result, 1024 * (_kilobytes("VmHWM") - before)


def fresh(work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work(*arguments)`` returns in a process of its own: nothing that ran before weighs in its memory.

    ``work`` is a module's function. As many threads as here, deterministic mode.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _begin, (torch.get_num_threads(),)) as pool:
        return pool.submit(work, *arguments).result()


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    make_deterministic()


def memory_of_training(given: dict, device: torch.device) -> int | None:
    """Bytes that making a ``vq`` and two steps take beyond images and program; for a ``fresh`` process.

    A little training comes first, so that what libraries load once is not counted.
    """
    for size in (LITTLE, given):
        split = made_split(2 * size["batch"], size["size"])
        training, memory = memory_of(lambda size=size, split=split: _two_steps(size, split, device), device)
        training.close()
    return memory


def _two_steps(given: dict, split: Split, device: torch.device) -> TakingTurns:
    training = TakingTurns(given, load_variants()["vq"], split, device)
    training.interval()
    training.interval()
    return training


def _give_back() -> None:
    """Return freed memory to the system: what the process still held of it would count as taken before."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)


def _kilobytes(key: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(key))


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int | None = None, repeats: int = 8) -> float:
    """Operations a second (2 n^3 of a product) that a square matrix multiplication reaches at best."""
    native = pick_precision("auto", device) == dtype or dtype == torch.float32
    size = size or (8192 if device.type == "cuda" else 2048 if native else 256)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(timed(lambda: a @ b, device) for _ in range(repeats))


def step_operations(given: dict, variant: Variant) -> int:
    """Floating-point operations of one training step, forward and backward, by torch's own counter."""
    images = 2  # the count is linear in the batch
    model = make_model(Network(width=given["width"], num_embeddings=given["codes"]), variant)
    with FlopCounterMode(display=False) as counter:
        output = model(torch.zeros(images, 3, given["size"], given["size"]))
        sum(output.losses.values()).backward()
    return counter.get_total_flops() * given["batch"] // images


def about(device: torch.device) -> dict[str, Any]:
    """What every result begins with: the machine and what the measuring ran on."""
    return {
        "hardware": describe_hardware(device),
        "device": device.type,
        "precision": str(pick_precision("auto", device)).removeprefix("torch."),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "low": low, "high": high}


@contextlib.contextmanager
def as_torch_comes() -> Iterator[None]:
    """torch's own defaults inside the block: what a program has that sets nothing."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        make_deterministic()
