"""The prior of a run, from its weights to files: what the notebook and the command line call."""

import contextlib
import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vqlib import checkpoints, provenance
from vqlib.device import describe_hardware, pick_precision
from vqlib.errors import DataError, StaleCodeError
from vqlib.evaluation import png, spread
from vqlib.files import digest_of_files, exclusive, in_one_line, json_bytes, rounded, write_atomically
from vqlib.model import save_model
from vqlib.opened import Opened, open_run
from vqlib.params import ROOT, Experiment, Run
from vqlib.priors import coding
from vqlib.priors.drawing import prior_file
from vqlib.priors.evaluation import bits_of_images, describe_bits, quantizer_of
from vqlib.priors.latents import Latents, NoPriorError, compress_split, layout_of
from vqlib.priors.model import PriorModel, load_prior, make_prior
from vqlib.priors.samples import compare, picture
from vqlib.priors.training import train_prior
from vqlib.progress import Progress
from vqlib.uniform import UniformQuantizer

HISTORY = ("part", "step", "split", "bits")
CODED = 16  # test images that go through a real bitstream
# What decides a prior's weights, besides parameters, the run's own weights and the data.
CODE = tuple(f"vqlib/priors/{name}.py" for name in
             ("__init__", "codes", "latents", "model", "pixelcnn", "reals", "training", "transformer"))  # fmt: skip


def code_digest() -> str:
    return digest_of_files([ROOT / file for file in CODE], ROOT)


IMPORTED = code_digest()


def train_prior_run(experiment: Experiment, run: Run) -> dict[str, Any]:
    """Train the prior of a run, resuming where a killed one stopped, and measure it; write prior.safetensors,
    results/<experiment>/<run>.prior.json, .prior.csv and .prior.png. Where there is no prior, they say why.

    Raises:
        UserError: no model, missing data, another process on the same prior, divergence, code changed meanwhile, a disk
            that is full or read-only.
    """
    opened = open_run(experiment, run)
    folder, results = experiment.run_folder(run), experiment.results
    with in_one_line(folder), exclusive(folder, f"training the prior of {run.name}"):
        try:
            if experiment.prior.variants is not None and run.variant.name not in experiment.prior.variants:
                raise NoPriorError("experiment.prior.variants does not name it")
            layout = layout_of(opened.model, opened.splits["train"], opened.device)
            latents = {name: compress_split(opened.model, split, layout, opened.device)
                       for name, split in opened.splits.items()}  # fmt: skip
            prior = make_prior(layout, len(opened.splits["train"].classes), experiment.prior, run.seed)
            if prior.reals is not None:
                prior.reals.base.fit(latents["train"])
        except NoPriorError as reason:
            return _pass_over(experiment, run, opened, str(reason))
        states = _train(experiment, run, opened, prior, latents)
        prior, description = load_prior(prior_file(experiment, run), run, opened.model, opened.weights)
        result = _measure(experiment, run, opened, prior.to(opened.device), latents)
        image = picture(opened.model, prior, latents["train"], opened.splits["train"], run.seed, opened.device)
        _write(results, run, result, description["history"], image)
        checkpoints.forget(states)
    return result


def _train(experiment: Experiment, run: Run, opened: Opened, prior: PriorModel, latents: dict[str, Latents]) -> Path:
    """Leave the trained prior in its file; returns the folder of its checkpoints.

    A file that was trained by the same code with the same parameters on the same weights and data is left as it is: its
    key says so. A change of what is measured, or of a notebook's prose, trains nothing again.
    """
    facts, states = _determinants(experiment, run, opened)
    with contextlib.suppress(DataError):
        if load_prior(prior_file(experiment, run), run, opened.model, opened.weights)[1].get("key") == states.name:
            return states
    with exclusive(states, f"training the prior of {run.name}"):
        history, least = _train_parts(experiment, run, prior, latents, opened.device, facts, states)
        if code_digest() != IMPORTED:
            raise StaleCodeError(f"{run.name}: vqlib/priors has changed since this process imported it, so no prior is "
                                 "written; start again with the new code")  # fmt: skip
        description = _describe(experiment, run, opened, None) | prior.layout._asdict() | {
            "classes": prior.classes, "chosen": min(least, key=least.get), "key": states.name, "history": history,
        }  # fmt: skip
        save_model(prior_file(experiment, run), prior.state_dict(), description)
    return states


def _train_parts(
    experiment: Experiment, run: Run, prior: PriorModel, latents: dict[str, Latents], device: torch.device,
    facts: dict[str, Any], states: Path,
) -> tuple[list[dict], dict[str, float]]:  # fmt: skip
    """Train every network in turn; its best weights stay in ``prior``. Returns the history and, of each network of the
    codes, the least bits on validation."""
    parts = dict(prior.codes.items()) | ({"reals": prior.reals} if latents["train"].has_reals else {})
    history, least = [], {}
    for name, part in parts.items():
        budget = getattr(experiment.prior, name)
        state = checkpoints.load_state(states / name, warn=lambda line: print(line, file=sys.stderr))
        shown = Progress(f"{experiment.name} {run.name} {name}", budget.steps, "steps", state.step if state else 0)
        if state:
            shown.say(f"{run.name}: {name} is going on after step {state.step:,}")
        save = _saving(states / name)
        try:
            trained = train_prior(
                part, latents["train"], latents["validation"], budget, experiment.prior.batch_size,
                experiment.prior.log_every, run.seed, device, getattr(torch, facts["precision"]),
                resume=state, save=save, progress=shown.update,
            )  # fmt: skip
        finally:
            shown.close()
        part.load_state_dict(trained.weights)
        part.eval()
        history += [{"part": name, **rounded(row)} for row in trained.history]
        if name in prior.codes:
            least[name] = min(row["bits"] for row in trained.history if row["split"] == "validation")
    return history, least


def _saving(folder: Path) -> Callable[[checkpoints.State], None]:
    folder.mkdir(parents=True, exist_ok=True)
    return lambda state: checkpoints.save_state(folder, state)


def _determinants(experiment: Experiment, run: Run, opened: Opened) -> tuple[dict[str, Any], Path]:
    """Everything that decides the weights of a prior, and the folder of checkpoints that belongs to it."""
    precision = pick_precision(experiment.training.precision, opened.device)
    facts = {
        "code": [IMPORTED, provenance.code_digest(experiment, run)],
        "data": opened.splits["train"].digest,
        "weights": opened.weights,
        "torch": torch.__version__,
        "device": opened.device.type,
        "threads": torch.get_num_threads() if opened.device.type == "cpu" else None,
        "precision": str(precision).removeprefix("torch."),
        "prior": experiment.prior.model_dump(exclude={"variants", "samples"}),
        "seed": run.seed,
    }
    return facts, checkpoints.checkpoint_folder(experiment.root, facts)


def _describe(experiment: Experiment, run: Run, opened: Opened, reason: str | None) -> dict[str, Any]:
    """What stands in a prior's file, whether there is one or not."""
    return {
        "variant": run.variant.model_dump(),
        "reason": reason,
        "weights": opened.weights,
        "alphabets": list(opened.model.bottleneck.alphabets),
        "prior": experiment.prior.model_dump(),
    }


def _pass_over(experiment: Experiment, run: Run, opened: Opened, reason: str) -> dict[str, Any]:
    """The files of a run without a prior: they say why."""
    print(f"{run.name} has no prior: {reason}", file=sys.stderr)
    save_model(prior_file(experiment, run), {}, _describe(experiment, run, opened, reason))
    result = _heading(experiment, run, opened) | {"reason": reason}
    size = experiment.data.image_size
    _write(experiment.results, run, result, [], png(torch.ones(1, 3, size, size), 1))
    return result


def _heading(experiment: Experiment, run: Run, opened: Opened) -> dict[str, Any]:
    facts, _ = _determinants(experiment, run, opened)
    shown = ("torch", "device", "threads", "precision", "seed")
    return {
        "experiment": experiment.name,
        "run": run.name,
        "variant": run.variant.name,
        "seed": run.seed,
        "provenance": {
            "hardware": describe_hardware(opened.device),
            **{key: facts[key] for key in shown},
            "code": IMPORTED[:12],
            "data": facts["data"][:12],
            "weights": opened.weights[:12],
            "train_images": len(opened.splits["train"].images),
            "classes": len(opened.splits["train"].classes),
            **{f"{part}_{key}": value for part in ("pixelcnn", "transformer", "reals")
               for key, value in getattr(experiment.prior, part).model_dump().items()},
            "batch_size": experiment.prior.batch_size,
        },
    }  # fmt: skip


def _measure(
    experiment: Experiment, run: Run, opened: Opened, prior: PriorModel, latents: dict[str, Latents]
) -> dict[str, Any]:
    """The whole result of a run that has a prior."""
    test, pixels = latents["test"], experiment.data.image_size**2
    quantizer = quantizer_of(latents["train"])
    few = test.at(spread(len(test), CODED))
    words = coding.encode(prior, few, quantizer)
    _compare_exactly(few, coding.decode(prior, words, len(few), quantizer), quantizer)
    told = float(bits_of_images(prior, few, quantizer, opened.device).mean()) / pixels
    bitstream = {"images": len(few), "bytes": words.nbytes, "bpp": 8 * words.nbytes / len(few) / pixels,
                 "bpp_prior": told}  # fmt: skip
    result = {
        **_heading(experiment, run, opened),
        "reason": None,
        "chosen": prior.chosen,
        "parameters": {name: sum(p.numel() for p in part.parameters())
                       for name, part in [*prior.codes.items(), ("reals", prior.reals)] if part is not None},
        **describe_bits(prior, latents["train"], test, quantizer, pixels, opened.device),
        "bitstream": bitstream,
        "samples": compare(opened.model, prior, latents, opened.splits, experiment.prior.samples, run.seed,
                           opened.device),
    }  # fmt: skip
    return rounded(result)


def _compare_exactly(sent: Latents, got: Latents, quantizer: UniformQuantizer | None) -> None:
    same = torch.equal(sent.symbols, got.symbols) and torch.equal(sent.labels, got.labels)
    if sent.reals is not None:
        same = same and torch.equal(torch.isnan(sent.reals), torch.isnan(got.reals))
        same = same and torch.equal(quantizer.indices(sent.reals), quantizer.indices(got.reals))
    if not same:
        raise RuntimeError("a bitstream under the prior was not decoded back to what was encoded")


def _write(results: Path, run: Run, result: dict[str, Any], history: list[dict], image: bytes) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with in_one_line(results):
        write_atomically(results / f"{run.name}.prior.json", json_bytes(result))
        write_atomically(results / f"{run.name}.prior.csv", text.getvalue().encode())
        write_atomically(results / f"{run.name}.prior.png", image)
