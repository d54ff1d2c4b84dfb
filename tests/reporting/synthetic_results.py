"""A repository in a temporary folder with synthetic results of every run of the default experiment."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vqlib.params import ROOT, experiment_names, load_experiment

NAME = experiment_names(ROOT)[0]


def make_repository(folder: Path) -> Path:
    """params.yaml and the bottlenecks of this repository, and results of each run."""
    shutil.copytree(ROOT / "vqlib" / "bottlenecks", folder / "vqlib" / "bottlenecks")
    shutil.copy(ROOT / "params.yaml", folder)
    for run in load_experiment(NAME, folder).runs:
        write_results(folder, run)
    return folder


def add_runs(root: Path, variant: str, seeds: range, new: bool = False) -> None:
    """Enter runs of a variant, and the variant itself when it is new, and write their results."""
    text = (root / "params.yaml").read_text()
    bottleneck = "vq" if new else variant
    entries = "".join(f"  {variant}-{k}: {{variant: {variant}, bottleneck: {bottleneck}, seed: {k}}}\n" for k in seeds)
    text = text.replace("runs:\n", f"runs:\n{entries}", 1)
    if new:
        text = text.replace("variants:\n", f"variants:\n  {variant}: {{bottleneck: vq}}\n", 1)
    (root / "params.yaml").write_text(text)
    for seed in seeds:
        write_results(root, f"{variant}-{seed}")


def write_results(root: Path, run: str, experiment: str = NAME) -> None:
    """Results as evaluation and training write them; the numbers follow from the run's name."""
    draw = np.random.default_rng(list(run.encode()))
    variant, seed = run.rsplit("-", 1)
    given = load_experiment(experiment, root)
    steps = given.training.steps
    codes, reals = variant != "identity", {"projected": 64, "projected_rows": 256, "identity": 2048}.get(variant, 0)

    def metrics() -> dict:
        found = {"images": 100, "mse": draw.uniform(0.001, 0.05), "psnr": draw.uniform(18, 32), "ssim": draw.random()}
        found |= {"quantization": draw.uniform(0.001, 0.05) if codes else None, "projection": None}
        found |= {"perplexity": draw.uniform(2, 512) if codes else None,
                  "codebook_usage": draw.random() if codes else None}  # fmt: skip
        found |= {f"{key}_8bit": found[key] * 1.01 if reals else None for key in ("mse", "psnr", "ssim")}
        return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.items()}

    content = {
        "experiment": experiment, "run": run, "variant": variant, "bottleneck": variant, "seed": int(seed),
        "provenance": {"hardware": "2 x <i>Fast</i> CPU", "device": "cpu", "precision": "float32", "torch": "2.0",
                       "threads": 2, "source": given.data.source, "image_size": given.data.image_size, "resize": "adm",
                       "train_images": 400, "width": given.network.width, "num_embeddings": 512,
                       "batch_size": given.training.batch_size, "steps": steps,
                       "learning_rate": given.training.learning_rate,
                       "code": f"{sum(run.encode()):012x}", "data": "d" * 12, "weights": weights(run)},
        "test": metrics(), "train": metrics(),
        "rate": {"bpp_codes": 0.5625 if codes else None, "bpp_32bit": 0.5625 * codes + reals / 32,
                 "bpp_8bit": 0.5625 * codes + reals / 128},
    }  # fmt: skip
    folder = root / "results" / experiment
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{run}.json").write_text(json.dumps(content))
    rows = [{"step": step, "epoch": step // 100, "split": split, "recon_loss": draw.uniform(0.01, 0.05),
             "commitment_loss": draw.random() if codes else None, "perplexity": 30.0 if codes else None,
             "recon_loss_max": 0.1 if split == "train" else None}
            for step in range(steps // 20, steps + 1, steps // 20) for split in ("train", "validation")]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / f"{run}.csv", index=False)
    originals = np.random.default_rng(0).integers(0, 256, (8, 16 * 8, 3), dtype=np.uint8)
    remade = draw.integers(0, 256, originals.shape, dtype=np.uint8)
    Image.fromarray(np.concatenate([originals, remade])).save(folder / f"{run}.png")


def weights(run: str) -> str:
    """The digest of the weights of a run."""
    return f"{2 * sum(run.encode()):012x}"


def evaluation(root: Path, run: str) -> dict:
    return json.loads((root / "results" / NAME / f"{run}.json").read_text())
