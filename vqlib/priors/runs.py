"""The prior of a run, from its weights to files: what the notebook and the command line call."""

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vqlib import checkpoints, provenance
from vqlib.device import describe_hardware, pick_precision
from vqlib.errors import DataError, StaleCodeError
from vqlib.evaluation import png, spread
from vqlib.files import digest_of, digest_of_files, exclusive, in_one_line, json_bytes, rounded, write_atomically
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
UNWANTED = "experiment.prior.variants does not name it"
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
            if not experiment.prior.wants(run):
                raise NoPriorError(UNWANTED)
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
        result = _measure(experiment, run, opened, prior.to(opened.device), latents, description["trained_on"])
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
    now = _workplace(opened.device)
    with contextlib.suppress(DataError):
        there = load_prior(prior_file(experiment, run), run, opened.model, opened.weights)[1]
        if there.get("key") == states.name:
            if there["trained_on"]["threads"] != now["threads"]:
                print(f"{run.name}: its prior was trained with {_threads(there['trained_on'])} and is kept; with "
                      f"{_threads(now)} last digits might differ", file=sys.stderr)  # fmt: skip
            return states
    with exclusive(states, f"training the prior of {run.name}"):
        history, least = _train_parts(experiment, run, prior, latents, opened.device, facts, states)
        if code_digest() != IMPORTED:
            raise StaleCodeError(f"{run.name}: vqlib/priors has changed since this process imported it, so no prior is "
                                 "written; start again with the new code")  # fmt: skip
        description = _describe(experiment, run, opened, None) | prior.layout._asdict() | {
            "classes": prior.classes, "chosen": min(least, key=least.get), "key": states.name, "history": history,
            "trained_on": now,
        }  # fmt: skip
        save_model(prior_file(experiment, run), prior.state_dict(), description)
    return states


def _train_parts(
    experiment: Experiment, run: Run, prior: PriorModel, latents: dict[str, Latents], device: torch.device,
    facts: dict[str, Any], states: Path,
) -> tuple[list[dict], dict[str, float]]:  # fmt: skip
    """Train every network in turn; its best weights stay in ``prior``. Returns the history and, of each network of the
    codes, the least bits on validation."""
    now = _workplace(device)
    parts = dict(prior.codes.items()) | ({"reals": prior.reals} if latents["train"].has_reals else {})
    history, least = [], {}
    for name, part in parts.items():
        budget = getattr(experiment.prior, name)
        state = checkpoints.load_state(states / name, warn=lambda line: print(line, file=sys.stderr))
        shown = Progress(f"{experiment.name} {run.name} {name}", budget.steps, "steps", state.step if state else 0)
        if state:
            shown.say(f"{run.name}: {name} is going on after step {state.step:,}")
            before, record = state.record
            state = state._replace(record=record)
            if before["threads"] != now["threads"]:
                shown.say(f"{run.name}: its checkpoint was written by {_threads(before)}; "
                          f"with {_threads(now)} last digits may differ")  # fmt: skip
        save = _saving(states / name, now)
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


def _saving(folder: Path, now: dict[str, Any]) -> Callable[[checkpoints.State], None]:
    """How to keep a state, with ``now``, the workplace that wrote it."""
    folder.mkdir(parents=True, exist_ok=True)
    return lambda state: checkpoints.save_state(folder, state._replace(record=[now, state.record]))


def _workplace(device: torch.device) -> dict[str, Any]:
    """What may decide a prior's last digits and is in no key, so that a training may go on elsewhere."""
    threads = torch.get_num_threads() if device.type == "cpu" else None
    return {"hardware": describe_hardware(device), "threads": threads}


def _threads(workplace: dict[str, Any]) -> str:
    return f"{workplace['threads']} thread{'' if workplace['threads'] == 1 else 's'}"


def _determinants(experiment: Experiment, run: Run, opened: Opened) -> tuple[dict[str, Any], Path]:
    """Everything that decides the weights of a prior, but for the order of additions (see ``_workplace``), and the
    folder of checkpoints that belongs to it."""
    precision = pick_precision(experiment.training.precision, opened.device)
    facts = {
        "code": [IMPORTED, provenance.code_digest(experiment, run)],
        "data": opened.splits["train"].digest,
        "weights": opened.weights,
        "torch": torch.__version__,
        "device": opened.device.type,
        "precision": str(precision).removeprefix("torch."),
        "prior": trained_with(experiment),
        "seed": run.seed,
    }
    return facts, checkpoints.checkpoint_folder(experiment.root, facts)


def trained_with(experiment: Experiment) -> dict[str, Any]:
    """The parameters of a prior that decide its weights: not which runs have one, nor how many samples are compared."""
    return experiment.prior.model_dump(exclude={"variants", "samples"})


def _describe(experiment: Experiment, run: Run, opened: Opened, reason: str | None) -> dict[str, Any]:
    """What stands in a prior's file, whether there is one or not."""
    return {
        "variant": run.variant.model_dump(),
        "reason": reason,
        "weights": opened.weights,
        "alphabets": list(opened.model.bottleneck.alphabets),
        "prior": trained_with(experiment),
    }


def _pass_over(experiment: Experiment, run: Run, opened: Opened, reason: str) -> dict[str, Any]:
    """The files of a run without a prior: they say why."""
    print(f"{run.name} has no prior: {reason}", file=sys.stderr)
    save_model(prior_file(experiment, run), {}, _describe(experiment, run, opened, reason))
    result = _heading(experiment, run, opened, _workplace(opened.device)) | {"reason": reason}
    size = experiment.data.image_size
    _write(experiment.results, run, result, [], png(torch.ones(1, 3, size, size), 1))
    return result


def _heading(experiment: Experiment, run: Run, opened: Opened, trained_on: dict[str, Any]) -> dict[str, Any]:
    facts, _ = _determinants(experiment, run, opened)
    shown = ("torch", "device", "precision", "seed")
    return {
        "experiment": experiment.name,
        "run": run.name,
        "variant": run.variant.name,
        "seed": run.seed,
        "provenance": {
            "hardware": trained_on["hardware"],
            "threads": trained_on["threads"],
            **{key: facts[key] for key in shown},
            "code": IMPORTED[:12],
            "data": facts["data"][:12],
            "weights": opened.weights[:12],
            "train_images": len(opened.splits["train"].images),
            "classes": len(opened.splits["train"].classes),
            **_budget(experiment),
        },
    }


def _budget(experiment: Experiment) -> dict[str, Any]:
    prior = experiment.prior
    return {
        **{f"{part}_{key}": value for part in ("pixelcnn", "transformer", "reals")
           for key, value in getattr(prior, part).model_dump().items()},
        "batch_size": prior.batch_size,
        "samples": prior.samples,
    }  # fmt: skip


def is_measured(experiment: Experiment, run: Run) -> bool:
    """Whether the result that is there was made by these parameters and this code, on the weights that are there."""
    try:
        made = json.loads((experiment.results / f"{run.name}.prior.json").read_text())
        weights = digest_of((experiment.run_folder(run) / "model.safetensors").read_bytes())
        now = {"weights": weights[:12], "code": IMPORTED[:12], **rounded(_budget(experiment))}
        same = all(made["provenance"][key] == value for key, value in now.items())
        return same and (made["reason"] == UNWANTED) == (not experiment.prior.wants(run))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _measure(
    experiment: Experiment, run: Run, opened: Opened, prior: PriorModel, latents: dict[str, Latents],
    trained_on: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The whole result of a run that has a prior."""
    test, pixels = latents["test"], experiment.data.image_size**2
    quantizer = quantizer_of(latents["train"])
    bitstream, missing = None, None
    try:
        bitstream = _code(prior, test.at(spread(len(test), CODED)), quantizer, pixels, opened.device)
    except coding.NoStreamError as reason:
        missing = str(reason)
    result = {
        **_heading(experiment, run, opened, trained_on),
        "reason": None,
        "chosen": prior.chosen,
        "parameters": {name: sum(p.numel() for p in part.parameters())
                       for name, part in [*prior.codes.items(), ("reals", prior.reals)] if part is not None},
        **describe_bits(prior, latents["train"], test, quantizer, pixels, opened.device),
        "bitstream": bitstream,
        "bitstream_missing": missing,
        "samples": compare(opened.model, prior, latents, opened.splits, experiment.prior.samples, run.seed,
                           opened.device),
    }  # fmt: skip
    return rounded(result)


def _code(
    prior: PriorModel, few: Latents, quantizer: UniformQuantizer | None, pixels: int, device: torch.device
) -> dict[str, Any]:
    """A real bitstream of a few images, decoded again. Raises NoStreamError where the prior has none of them."""
    words = coding.encode(prior, few, quantizer)
    _compare_exactly(few, coding.decode(prior, words, len(few), quantizer), quantizer)
    told = float(bits_of_images(prior, few, quantizer, device).mean()) / pixels
    return {"images": len(few), "bytes": words.nbytes, "bpp": 8 * words.nbytes / len(few) / pixels, "bpp_prior": told}


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
