"""Experiments at full scale on one machine with GPUs, in one command: ``python tools/full_scale.py tiny_imagenet_32``.

Checks what is needed, prepares the images, trains and evaluates every run and its prior (several at once, one GPU for
each), draws the reports and, where every run has results, the page over all experiments, and puts results, reports and
weights into a folder (--out, or the environment variable OUT) after every run. Started again it goes on: runs that are
there are left alone, a run that was cut off continues from its last checkpoint. With --minutes it stops by itself, and
what is running saves first. With --dry-run it says what it would do and what is missing, and does nothing.

Where DVC and papermill are installed, runs are stages of dvc.yaml and dvc.lock is kept; else the same code runs as
``python -m vqlib``. Wants Python 3.11 or newer and the packages of ``NEEDED``.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

NEEDED = {
    "torch": "torch", "torchmetrics": "torchmetrics", "safetensors": "safetensors", "pydantic": "pydantic",
    "ruamel.yaml": "ruamel.yaml", "PIL": "pillow", "numpy": "numpy", "tqdm": "tqdm",
    "pandas": "pandas", "scipy": "scipy", "seaborn": "seaborn", "matplotlib": "matplotlib",
    "markdown_it": "markdown-it-py", "constriction": "constriction", "skimage": "scikit-image",
    "vector_quantize_pytorch": "vector-quantize-pytorch",
}  # fmt: skip
TO_SAVE = 600  # seconds that a run gets for its checkpoint when it is told to stop, as from vqlib.nb
STEPS = ("train", "evaluate", "prior")  # of a run
COPIED = ("checkpoints", "executed", "reports", "results", "runs")  # folders of the repository, to --out
MOST_PER_GPU = 64


class Problem(Exception):
    """What a user can mend, in one line."""


class Job:
    """A run of an experiment, and how it ended."""

    def __init__(self, experiment, run):
        self.experiment, self.run, self.state = experiment, run, "waiting"
        self.name = f"{experiment.name} {run.name}"


class Machine:
    """Slots that runs take, and everything that was started. One slot is a GPU's share, or the CPU's."""

    def __init__(self, slots: list[str | None], threads: int, logs: Path, deadline: float, with_dvc: bool):
        self.slots, self.threads, self.logs, self.deadline, self.with_dvc = slots, threads, logs, deadline, with_dvc
        self.children: set[subprocess.Popen] = set()
        self.stopping = False
        self.lock = threading.Lock()

    def command(self, step: str, experiment, run=None) -> list[str]:
        if not self.with_dvc:
            return [sys.executable, "-m", "vqlib", step, experiment.name, *([run.name] if run else [])]
        stage = f"{pipeline_of(experiment)}:{step}" + (f"@{run.name}" if run else "")
        return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]

    def do(self, command: list[str], log: Path, gpu: str | None = None) -> int:
        """Run a command in the repository, its output into a log; its exit status."""
        from vqlib.distributed import end_with_parent  # needs torch, which `check` has found by now

        log.parent.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": str(ROOT)}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        if gpu is not None:
            env["CUDA_VISIBLE_DEVICES"] = gpu
        with open(log, "ab") as file:
            with self.lock:
                if self.stopping:
                    return 130
                child = subprocess.Popen(
                    command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                    start_new_session=True, preexec_fn=end_with_parent,
                )  # fmt: skip
                self.children.add(child)
            code = child.wait()
            with self.lock:
                self.children.discard(child)
        return code

    def stop(self) -> None:
        """Tell everything that runs to save and end; what does not within ``TO_SAVE`` seconds is killed.

        DVC ends at once, and its stage, in the same group of processes, saves when it sees that.
        """
        with self.lock:
            self.stopping = True
            children = list(self.children)
        for child in children:
            child.terminate()  # alone: a trainer that gets a second signal ends without saving
        limit = time.monotonic() + TO_SAVE
        while any(at_work(child) for child in children) and time.monotonic() < limit:
            time.sleep(0.1)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def at_work(child: subprocess.Popen) -> bool:
    """Whether any process of its group is there, itself or what it started."""
    child.poll()  # one that ended but was not waited for would count
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    return True


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def pipeline_of(experiment) -> str:
    place = Path() if experiment.name == "sample" else Path("experiments", experiment.name)
    return (place / "dvc.yaml").as_posix()


def check(choice: str, benchmarks: bool = False) -> bool:
    """Everything is installed; returns whether DVC is used."""
    needed = NEEDED | ({"torchvision": "torchvision"} if benchmarks else {})
    lacking = sorted(wheel for module, wheel in needed.items() if not there(module))
    if lacking:
        raise Problem(f"packages are missing: pip install {' '.join(lacking)}")
    dvc = there("dvc") and there("papermill") and (ROOT / ".git").exists()
    if choice == "dvc" and not dvc:
        raise Problem("--with dvc wants the packages dvc and papermill, and a git clone")
    return dvc if choice == "auto" else choice == "dvc"


def there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def refuse_numbers(per_gpu: int, minutes: float | None) -> None:
    """Raises Problem where an option is out of its range."""
    if not 1 <= per_gpu <= MOST_PER_GPU:
        raise Problem(f"--per-gpu is {per_gpu}; it must be a whole number from 1 to {MOST_PER_GPU}")
    if minutes is not None and not minutes >= 0:
        raise Problem(f"--minutes is {minutes:g}; it must be 0 or more, and without it there is no limit")


def place_of(out: Path) -> Path:
    """``--out`` as a whole path; raises Problem where copies would land on or in what they are made of."""
    out = out.resolve()
    if out == ROOT or any(out.is_relative_to((ROOT / name).resolve()) for name in COPIED):
        raise Problem(f"--out is {out}; it may be any folder but the repository itself and those of its folders that "
                      f"are copied there: {', '.join(COPIED)}")  # fmt: skip
    nearest = next(place for place in (out, *out.parents) if place.exists())
    if not nearest.is_dir():
        raise Problem(f"--out is {out}, but {nearest} is a file; it must be a folder")
    return out


def slots_of(device: str, per_gpu: int) -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES is for each run at work; None leaves it as it is, on a CPU."""
    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return [None] * per_gpu
    if not torch.cuda.is_available():
        raise Problem("no GPU is there for torch; --device cpu runs on the processor")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else [str(number) for number in range(torch.cuda.device_count())]
    return names * per_gpu  # 0 1 2 3 0 1 2 3: the first runs get a GPU of their own


def one_gpu_each(experiments: list) -> None:
    """Raises Problem where a run asks for several: a slot is one GPU, on which such a run would fail."""
    for experiment in experiments:
        if experiment.training.devices not in ("auto", 1):
            raise Problem(f"{experiment.name}: training.devices is {experiment.training.devices}, but here each run "
                          "gets one GPU; set it to 1 or auto, or start the run with python -m vqlib train")  # fmt: skip


def is_current(experiment, run) -> bool:
    """Whether the run's results are there, and made by these parameters, this code and these images."""
    from vqlib.data.reader import read_manifest
    from vqlib.errors import UserError
    from vqlib.model import load_model
    from vqlib.provenance import code_digest, differences

    if not (experiment.results / f"{run.name}.csv").is_file():
        return False
    try:
        described = load_model(experiment.run_folder(run) / "model.safetensors")[1]
        digest = read_manifest(experiment.prepared)["digest"]
    except UserError:
        return False
    same_code = described["provenance"]["code"] == code_digest(experiment, run)[:12]
    return same_code and not differences(described, experiment, run, digest)


def is_evaluated(experiment, run) -> bool:
    """Whether the evaluation belongs to the weights that are there."""
    from vqlib.files import digest_of

    try:
        measured = json.loads((experiment.results / f"{run.name}.json").read_text())["provenance"]["weights"]
        return measured == digest_of((experiment.run_folder(run) / "model.safetensors").read_bytes())[:12]
    except (OSError, ValueError, KeyError):
        return False


def has_prior(experiment, run) -> bool:
    """Whether the prior's result belongs to the weights that are there, and to the parameters and code of now."""
    from vqlib.priors.runs import is_measured

    return is_measured(experiment, run)


def work(job: Job, machine: Machine, gpu: str | None, out: Path) -> None:
    """Train and evaluate one run and its prior, unless they are there; its state tells how that ended."""
    log = machine.logs / job.experiment.name / f"{job.run.name}.log"
    done = {"train": is_current, "evaluate": is_evaluated, "prior": has_prior}
    start, job.state = time.monotonic(), "up to date"
    for step in STEPS:
        if not machine.with_dvc and done[step](job.experiment, job.run):
            continue  # DVC knows by itself
        say(f"{job.name}: {step}" + (f" on GPU {gpu}" if gpu is not None else ""))
        code = machine.do(machine.command(step, job.experiment, job.run), log, gpu)
        job.state = "done"
        if machine.stopping:
            job.state = "stopped"
            return
        if code:
            job.state = f"failed in {step} (exit status {code}, {log})"
            say(f"{job.name}: {job.state}: {last_line(log)}")
            return
    minutes = (time.monotonic() - start) / 60
    say(f"{job.name}: {job.state}" + (f" after {minutes:.1f} min" if job.state == "done" else ""))
    bundle(job.experiment, out)


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it said nothing"


def work_through(jobs: list[Job], machine: Machine, out: Path) -> None:
    """All jobs, in order, as slots become free; returns when all have ended or the deadline has stopped them."""
    waiting = list(jobs)

    def slot(gpu: str | None) -> None:
        while True:
            with machine.lock:
                if machine.stopping or not waiting or time.monotonic() >= machine.deadline:
                    return
                job = waiting.pop(0)
            try:
                work(job, machine, gpu, out)
            except Exception as error:  # one run must not take the others along
                job.state = f"failed ({type(error).__name__}: {error})"
                say(f"{job.name}: {job.state}")

    threads = [threading.Thread(target=slot, args=(gpu,), daemon=True) for gpu in machine.slots]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
        if time.monotonic() > machine.deadline and not machine.stopping:
            say("the time is up: what runs is told to save and end")
            machine.stop()


def bundle(experiment, out: Path) -> None:
    """Copy what one wants to keep, at its place below the repository's root, so that it can be copied back."""
    copies = [experiment.results, experiment.reports, ROOT / "checkpoints", *experiment_files(experiment)]
    keep([*copies, ROOT / "runs" / experiment.name, ROOT / "executed" / experiment.name], out)


def keep(sources: list[Path], out: Path) -> None:
    """Copy files and folders of the repository to their places below ``out``."""
    for source in sources:
        target = out / source.relative_to(ROOT)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"),
                            copy_function=copy_if_there)  # fmt: skip
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_if_there(source, target)


def copy_if_there(source, target) -> None:
    """A checkpoint may be deleted by its run meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def experiment_files(experiment) -> list[Path]:
    place = ROOT / Path(pipeline_of(experiment)).parent
    return [place / "dvc.yaml", place / "dvc.lock", place / "params.yaml", experiment.prepared / "manifest.json"]


def report(experiment, jobs: list[Job], machine: Machine) -> bool:
    """Measure JPEG and WebP and draw the report, unless it is of the results as they are; False where that failed."""
    log = machine.logs / experiment.name / "report.log"
    new = any(job.state == "done" for job in jobs if job.experiment is experiment)
    if not any(experiment.results.glob("*.json")) or (is_drawn(experiment) and not new):
        return True
    for step in ("codecs", "report"):
        if machine.do(machine.command(step, experiment), log):
            say(f"{experiment.name}: {step} failed: {last_line(log)}")
            return False
    say(f"{experiment.name}: report drawn")
    return True


def is_drawn(experiment) -> bool:
    """Whether both forms of the report, the first and the last file that are written, are newer than every result."""
    pages = [experiment.reports / "README.md", experiment.reports / "report.html"]
    if not all(page.is_file() for page in pages):
        return False
    results = [path.stat().st_mtime_ns for path in experiment.results.rglob("*") if path.is_file()]
    return min(page.stat().st_mtime_ns for page in pages) > max(results)


def study(experiments: list, machine: Machine, out: Path) -> bool:
    """Draw the page over all experiments, where none of these lacks a run's results; False where that failed."""
    lacking = [f"{e.name} {run}" for e in experiments for run in e.runs if not (e.results / f"{run}.json").is_file()]
    if lacking:
        say(f"the study is not drawn: {len(lacking)} runs have no results, the first is {lacking[0]}")
        return True
    drawn = at_the_end("the study", [sys.executable, "-m", "vqlib.reporting.study"], machine)
    keep([path for path in (ROOT / "reports").glob("*") if path.suffix in (".md", ".csv", ".tex")], out)
    return drawn


def benchmarks(experiment, machine: Machine, out: Path) -> bool:
    """Measure speed on one GPU (or the CPU), real images being those of ``experiment``; False where that failed."""
    device = "cpu" if machine.slots[0] is None else "cuda"
    command = [sys.executable, "-m", "benchmarks", "--device", device, "--experiment", experiment.name]
    measured = at_the_end("benchmarks", command, machine)
    keep([ROOT / "results" / "benchmarks", ROOT / "reports" / "benchmarks"], out)
    return measured


def at_the_end(name: str, command: list[str], machine: Machine) -> bool:
    log = machine.logs / f"{name.split()[-1]}.log"
    failed = machine.do(command, log, machine.slots[0])
    say(f"{name}: failed: {last_line(log)}" if failed else f"{name}: done")
    return not failed


def plan(experiments: list, jobs: list[Job], slots: list[str | None], with_dvc: bool, out: Path) -> int:
    """Say what would be done and what is missing, and do nothing; 0, or 2 where something is missing."""
    say(f"packages: all are there; {'stages of DVC' if with_dvc else 'python -m vqlib'}")
    found = {experiment.name: images_of(experiment) for experiment in experiments}
    for name, (_, line) in found.items():
        say(f"{name}: images {line}")
    weights = [2 * parameters_of(job) for job in jobs]
    checkpoints = 3 * 8 * max(weights, default=0) * len(slots)  # three a run at work: weights, the best, Adam's two
    needed = sum(size or 0 for size, _ in found.values()) + 2 * (sum(weights) + checkpoints)  # --out has a copy
    free = shutil.disk_usage(ROOT).free
    say(f"disk: {needed / 1e9:.2f} GB for images, weights and checkpoints, with the copy in {out}; "
        f"{free / 1e9:.2f} GB free")  # fmt: skip
    gpus = sorted({slot for slot in slots if slot is not None})
    at_once = f"{len(slots)} run{'s' if len(slots) > 1 else ''} at once"
    say(f"GPUs: {', '.join(gpus) or 'none, the CPU is used'}; {at_once}")
    for job in jobs:
        done = {"train": is_current(job.experiment, job.run), "evaluate": is_evaluated(job.experiment, job.run),
                "prior": has_prior(job.experiment, job.run)}  # fmt: skip
        left = STEPS if not done["train"] else [step for step in STEPS if not done[step]]
        say(f"{job.name}: {', '.join(left) or 'up to date'}")
    return 2 if needed > free or any(size is None for size, _ in found.values()) else 0


def images_of(experiment) -> tuple[int | None, str]:
    """Bytes of the images yet to be prepared, None where there is no source; and a line on where they are."""
    from vqlib.data.sources import resolve
    from vqlib.data.sources.imagenet import ILSVRC2012, TRAIN_TAR
    from vqlib.errors import UserError
    from vqlib.params import raw_path

    data = experiment.data
    if (experiment.prepared / "manifest.json").is_file():
        return 0, f"are prepared, in {experiment.prepared}"
    if data.download:
        return 0, f"may be downloaded by torchvision to {data.path}"
    each = 3 * data.image_size**2
    if data.source == "imagenet" and data.path:  # listing it takes long: read when it is prepared
        place = raw_path(data.path)
        if place.exists() or (place.parent / TRAIN_TAR).exists():
            return each * (ILSVRC2012.train + ILSVRC2012.test), f"to be prepared from {place}"
    try:
        source = resolve(data, ROOT)
    except UserError as error:
        return None, f"are MISSING: {error}"
    size = each * sum(len(items) for items in source.items.values())
    return size, f"to be prepared from {data.path or data.source}: {size / 1e9:.2f} GB"


def parameters_of(job: Job) -> int:
    from vqlib.model import make_model

    return sum(each.numel() for each in make_model(job.experiment.network, job.run.variant).parameters())


def prepare(experiment, machine: Machine) -> None:
    pipeline = ROOT / pipeline_of(experiment)
    if machine.with_dvc and not pipeline.is_file():
        shutil.copy(ROOT / "dvc.yaml", pipeline)
    log = machine.logs / experiment.name / "prepare.log"
    for step in ("notebooks", "prepare") if machine.with_dvc else ("prepare",):
        say(f"{experiment.name}: {step}")
        if machine.do(machine.command(step, experiment), log):
            raise Problem(f"{experiment.name}: {step} failed: {last_line(log)} ({log})")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when all is done, 1 when something failed or is left, 2 for what a user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT")
    parser.add_argument("--per-gpu", type=int, default=1, metavar="N", help="runs at once on each GPU, or on the CPU")
    parser.add_argument("--minutes", type=float, help="stop by then; started again, it goes on")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT") or "full_scale", help="where the results go")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--with", choices=("auto", "dvc", "vqlib"), default="auto", dest="choice")
    parser.add_argument("--runs", nargs="*", metavar="RUN", help="only these; else all of them")
    parser.add_argument("--benchmarks", action="store_true", help="also python -m benchmarks, when all runs are there")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and what is missing; do nothing")
    given = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * given.minutes if given.minutes is not None else float("inf")
    try:
        refuse_numbers(given.per_gpu, given.minutes)
        out = place_of(given.out)
        with_dvc = check(given.choice, given.benchmarks)
        from vqlib.errors import UserError
        from vqlib.params import load_experiment

        try:
            experiments = [load_experiment(name) for name in given.experiments]
            chosen = [(e, e.run(name)) for e in experiments for name in (given.runs or e.runs)]
        except UserError as error:
            raise Problem(str(error)) from None
        slots = slots_of(given.device, given.per_gpu)
        if slots[0] is not None:
            one_gpu_each(experiments)
        threads = max(1, (os.cpu_count() or 1) // len(slots))
        jobs = [Job(*pair) for pair in chosen]
        if given.dry_run:
            return plan(experiments, jobs, slots, with_dvc, out)
        machine = Machine(slots, threads, out / "logs", deadline, with_dvc)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: below, everything is told to save
        each = f"{'' if slots[0] is None else 'one GPU and '}{threads} CPU threads each"
        say(f"{len(chosen)} runs, {len(slots)} at a time, {'stages of DVC' if with_dvc else 'python -m vqlib'}, "
            f"{each}; logs and results in {out}")  # fmt: skip
        try:
            return run_all(experiments, jobs, machine, out, given.benchmarks)
        except (KeyboardInterrupt, SystemExit):
            say("told to stop: what runs is told to save and end")
            machine.stop()
            for experiment in experiments:
                bundle(experiment, out)
            return 130
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2


def run_all(experiments: list, jobs: list[Job], machine: Machine, out: Path, with_benchmarks: bool) -> int:
    for experiment in experiments:
        if time.monotonic() < machine.deadline:
            prepare(experiment, machine)
    work_through(jobs, machine, out)
    machine.stopping = False  # reports are still drawn after the time is up: they take seconds
    failed = []
    for experiment in experiments:
        if not report(experiment, jobs, machine):
            failed.append(f"the report of {experiment.name}")
        bundle(experiment, out)
    left = [job for job in jobs if job.state not in ("done", "up to date")]
    for job in left:
        say(f"{job.name}: {job.state}")
    if not study(experiments, machine, out):
        failed.append("the study")
    may_measure = not left and time.monotonic() < machine.deadline
    if with_benchmarks and not (may_measure and benchmarks(experiments[0], machine, out)):
        failed.append("benchmarks")
    say(f"{len(jobs) - len(left)} of {len(jobs)} runs are there"
        + (f"; not done: {', '.join(failed)}" if failed else "")
        + ("; the same command goes on" if left or failed else ""))  # fmt: skip
    return 1 if left or failed else 0


if __name__ == "__main__":
    sys.exit(main())
