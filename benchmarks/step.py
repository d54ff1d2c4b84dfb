"""The training step: ours against a straightforward loop, and whether what makes it fast changes what is learnt."""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure, naive
from vqlib.data.reader import Split
from vqlib.device import make_deterministic, pick_precision
from vqlib.model import VQVAE, load_model, make_model
from vqlib.params import ROOT, load_variants
from vqlib.quantize import nearest_code
from vqlib.training import train

SEEDS = (0, 1, 2)


def speed(device: torch.device, small: bool) -> list[dict[str, Any]]:
    """Ours and the straightforward loop, in turns, at the paper's size and at ImageNet's."""
    gpu = device.type == "cuda"
    sizes = [measure.setting(), measure.setting(size=128, batch=128 if gpu else 8)]
    rounds, steps = (5, 20) if gpu else (5, 1)
    if small:
        sizes, rounds = [measure.setting(8, 16, 4, 16), measure.setting(8, 32, 4, 16)], 2
    return [_side_by_side(given, device, rounds, steps) for given in sizes]


def _side_by_side(given: dict, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    split = measure.made_split(max(1024, 8 * given["batch"]) if given["batch"] >= 8 else 16, given["size"])
    variant = load_variants()["vq"]
    with tempfile.TemporaryDirectory() as folder:
        files = naive.write_files(split, Path(folder, "images"))
        memory = {
            "ours": measure.fresh(measure.memory_of_training, given, device),
            "straightforward": measure.fresh(memory_of_straightforward, given, files, device),
        }
        # The loader's workers are forks of this process, which is safe only while it has no second thread of Python: so
        # the straightforward way starts first.
        plain = naive.files_and_loader(given, files, device, steps)
        next(plain)
        ours = measure.TakingTurns(given, variant, split, device, steps)
        ours.interval()
        works = {"ours": ours.interval, "straightforward": lambda: next(plain)}
        seconds = measure.in_turn(works, rounds)
        ours.close()
        plain.close()
    return {
        **given,
        "steps": steps,
        "rounds": rounds,
        "operations": measure.step_operations(given, variant),
        "precision": str(ours.precision).removeprefix("torch."),
        "seconds": seconds,
        "memory": memory,
    }


def memory_of_straightforward(given: dict, files: Path, device: torch.device) -> int | None:
    """Bytes that making the model and two steps take beyond the program; for a ``measure.fresh`` process.

    What the loader's workers take, processes of their own, is not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        little = naive.write_files(measure.made_split(8, measure.LITTLE["size"]), Path(folder, "little"))
        for size, place in ((measure.LITTLE, little), (given, files)):
            plain = naive.files_and_loader(size, place, device)
            _, memory = measure.memory_of(lambda plain=plain: (next(plain), next(plain)), device)
            plain.close()
    return memory


def final_errors(splits: tuple[Split, Split], device: torch.device, small: bool) -> dict[str, Any]:
    """Validation errors of short trainings in each precision, seed by seed, and codes against a float64 search."""
    given = measure.setting(width=16, size=splits[0].images.shape[1], batch=32, codes=64, learning_rate=1e-3)
    steps = 4 if small else 400
    variant, rows, agreement = load_variants()["vq"], [], []
    make_deterministic()
    for seed, precision in itertools.product(SEEDS[: 1 if small else None], ("float32", "bfloat16")):
        experiment = measure.experiment_of(given, steps, steps, device, precision)
        run = measure.run_of(variant, experiment, seed)
        trained = train(experiment, run, *splits, device, pick_precision(precision, device))
        model = make_model(experiment.network, variant).to(device)
        model.load_state_dict(trained.weights)
        error = trained.history[-1]["recon_loss"]
        rows.append({"seed": seed, "precision": precision, "mse": error})
        agreement.append(
            {"weights": f"{run.name}, {precision}, trained here", **agreement_of(model, splits[1], device)}
        )
    return {**given, "steps": steps, "images": len(splits[0].images), "source": splits[0].digest[:12],
            "errors": rows, "agreement": agreement}  # fmt: skip


@torch.no_grad()
def agreement_of(model: VQVAE, split: Split, device: torch.device, images: int = 1000) -> dict[str, float]:
    """Share of positions whose code is that of a search in float64, on the latents of real images."""
    from vqlib.batches import Images

    model.eval()
    same = positions = 0
    for x in itertools.islice(Images(split, device).in_order(100), images // 100):
        z_e = model.encode(x)
        codebook = model.bottleneck.codebook
        exact = nearest_code(z_e.double(), codebook.double())
        same += int((nearest_code(z_e, codebook) == exact).sum())
        positions += exact.numel()
    return {"positions": positions, "share": same / positions}


def committed_agreement(split: Split, device: torch.device, experiment: str) -> list[dict[str, Any]]:
    """The same for every trained model of ``experiment`` that lies here and has one codebook."""
    rows = []
    for file in sorted((ROOT / "runs" / experiment).glob("*/model.safetensors")):
        model, described = load_model(file)
        codebook = getattr(model.bottleneck, "codebook", None)
        if isinstance(codebook, torch.Tensor) and codebook.dim() == 2 and len(model.bottleneck.alphabets) == 1:
            name = f"{experiment} {file.parent.name}, {described['provenance']['precision']}"
            rows.append({"weights": name, **agreement_of(model.to(device), split, device)})
    return rows


def measured(device: torch.device, small: bool, splits: tuple[Split, Split], experiment: str) -> dict[str, Any]:
    peaks = {name: measure.matmul_peak(device, getattr(torch, name), 64 if small else None)
             for name in ("float32", "bfloat16")}  # fmt: skip
    validation = splits[1]
    errors = final_errors(splits, device, small)
    errors["agreement"] += committed_agreement(validation, device, experiment)
    return {"peaks": peaks, "speed": speed(device, small), "errors": errors}
