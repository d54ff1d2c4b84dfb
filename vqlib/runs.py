"""One run from prepared data to files: what the notebooks and the command line call."""

import contextlib
import csv
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vqlib import checkpoints, distributed, launch, provenance
from vqlib.contract import check_bottleneck
from vqlib.data.reader import open_split
from vqlib.device import make_deterministic, pick_device, pick_precision
from vqlib.errors import DivergedError
from vqlib.files import exclusive, in_one_line, json_bytes, rounded, write_atomically
from vqlib.model import save_model
from vqlib.opened import open_run
from vqlib.params import Experiment, Run
from vqlib.progress import Progress
from vqlib.training import COLUMNS, Trained, train


def train_run(experiment: Experiment, run: Run) -> Trained:
    """Train a run, resuming where a killed one stopped; write model.safetensors and the history's csv.

    Where ``training.devices`` (or VQLIB_DEVICES) asks for several processes, they are started here, and this one waits
    for them. SIGTERM or Ctrl-C makes the run save and end.

    Raises:
        UserError: missing data, no such device, a bottleneck that breaks its contract, another process on the same
            run, divergence, code changed meanwhile, a disk that is full or read-only, a process that died.
        Stopped: a signal ended the run; it is saved.
        KeyboardInterrupt: a second signal ended it before it could save.
    """
    kind = pick_device(experiment.training.device).type
    if not distributed.started_by_torchrun():
        processes = launch.processes_for(experiment.training.devices, kind)
        if processes > 1:
            return launch.train_apart(experiment, run, processes)
    make_deterministic()
    with distributed.joined(kind) as device, launch.stop_on_signal() as to_stop:
        return _train_here(experiment, run, device, to_stop)


def _train_here(experiment: Experiment, run: Run, device: torch.device, to_stop: Callable[[], bool]) -> Trained:
    """``train_run`` in this process, which is the only one or one of a group; the first of a group writes."""
    budget, folder, first = experiment.training, experiment.run_folder(run), distributed.rank() == 0
    precision = pick_precision(budget.precision, device)
    check_bottleneck(experiment.network, run.variant)

    def alone(place: Path) -> contextlib.AbstractContextManager:
        return exclusive(place, f"training {run.name}") if first else contextlib.nullcontext()

    with in_one_line(folder), alone(folder):
        splits = [open_split(experiment.prepared, name, experiment.data.image_size) for name in ("train", "validation")]
        facts = provenance.determinants(experiment, run, splits[0].digest, device, precision)
        states = checkpoints.checkpoint_folder(experiment.root, facts)
        with alone(states):
            state = checkpoints.load_state(states, warn=lambda line: print(line, file=sys.stderr)) if first else None
            state, before = distributed.shared(made_by(state))
            now = provenance.workers(device)
            start = state.step if state else 0
            shown = Progress(f"{experiment.name} {run.name}", budget.steps * budget.batch_size, "images",
                             start * budget.batch_size) if first else None  # fmt: skip
            if state and shown:
                shown.say(f"{run.name}: going on after step {start:,}")
                if before != now:
                    shown.say(f"{run.name}: its checkpoint was written by {in_words(before)}; "
                              f"with {in_words(now)} last digits may differ")  # fmt: skip
            try:
                trained = train(
                    experiment, run, *splits, device, precision,
                    resume=state,
                    save=lambda new: checkpoints.save_state(states, new._replace(record=[now, new.record])),
                    progress=lambda step, note: shown and shown.update(step * budget.batch_size, note),
                    to_stop=to_stop,
                )  # fmt: skip
            except DivergedError as error:
                if first:
                    write_atomically(states / "diverged.json", json_bytes(error.report))
                raise DivergedError(f"{error}; the report is {states / 'diverged.json'}") from None
            finally:
                if shown:
                    shown.close()
            provenance.code_digest(experiment, run)  # DVC would record changed code for this result: refused
            if first:
                _write_trained(experiment, run, trained, facts, len(splits[0].images), device)
        if first:
            checkpoints.forget(states)
    return trained


def made_by(state: checkpoints.State | None) -> tuple[checkpoints.State | None, dict[str, int | None]]:
    """A checkpoint as ``train`` takes it, and the ``provenance.workers`` that wrote it."""
    return (state._replace(record=state.record[1]), state.record[0]) if state else (None, {})


def in_words(workers: dict[str, int | None]) -> str:
    """``provenance.workers``, as "2 processes of 1 thread"."""
    words = [f"{count} {word if count == 1 else many}"
             for word, many in (("process", "processes"), ("thread", "threads"))
             if (count := workers[many])]  # fmt: skip
    return " of ".join(words)


def _write_trained(
    experiment: Experiment, run: Run, trained: Trained, facts: dict[str, Any], images: int, device: torch.device
) -> None:
    description = provenance.describe(experiment, run, facts, images, device)
    save_model(
        experiment.run_folder(run) / "model.safetensors",
        trained.weights,
        {
            "network": experiment.network.model_dump(),
            "variant": run.variant.model_dump(),
            "provenance": {**description, "best_step": trained.best_step},
        },
    )
    write_atomically(experiment.results / f"{run.name}.csv", history_csv(trained.history))


def history_csv(history: list[dict[str, Any]]) -> bytes:
    """The rows of a history; a column that only some variants have comes after the common ones."""
    columns = [*COLUMNS, *sorted({key for row in history for key in row} - set(COLUMNS))]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rounded(row) for row in history)
    return text.getvalue().encode()


def evaluate_run(experiment: Experiment, run: Run) -> dict[str, Any]:
    """Evaluate a run's saved weights over the test split; write its json and its strip of reconstructions.

    Raises:
        DataError: no model, or one that was trained otherwise, or on other data, than params.yaml now says.
        DivergedError: a metric is not finite.
    """
    from vqlib.evaluation import evaluate, reconstruction_strip  # needs libraries that training does without

    opened = open_run(experiment, run, ("train", "test"))
    model, test, device = opened.model, opened.splits["test"], opened.device
    metrics = evaluate(model, opened.splits["train"], test, device)
    for key, value in metrics["test"].items():
        if value is not None and not math.isfinite(value):
            raise DivergedError(f"{run.name}: {key} on the test split is {value}; the weights in "
                                f"{experiment.run_folder(run) / 'model.safetensors'} are of no use")  # fmt: skip
    result = {
        "experiment": experiment.name,
        "run": run.name,
        "variant": run.variant.name,
        "bottleneck": run.variant.bottleneck,
        "seed": run.seed,
        "provenance": {
            **opened.provenance,
            "parameters": sum(p.numel() for p in model.parameters()),
            "weights": opened.weights[:12],
        },
        **metrics,
    }
    result = rounded(result)
    strip = reconstruction_strip(model, test, device)
    with in_one_line(experiment.results):
        write_atomically(experiment.results / f"{run.name}.json", json_bytes(result))
        write_atomically(experiment.results / f"{run.name}.png", strip)
    return result
