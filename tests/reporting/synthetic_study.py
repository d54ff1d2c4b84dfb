"""Two experiments of many variants, seeds and learning rates, as evaluation, codecs and priors write their results.

The numbers follow from formulas and the run's name: errors fall with the rate, seeds scatter by a few per cent. They
are made up, and only their form matters.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vqlib.params import ROOT

SMALL, SWEEP = "tiny_imagenet_32_small", "tiny_imagenet_32_sweep"
STUB = """class Bottleneck:
    def __init__(self, num_embeddings: int, embedding_dim: int, num_frequent: int = 0, gain_bits: int = 0):
        pass
"""
# variant: (MSE, nominal bits of a position's codes, numbers per image, options)
MODELS = {
    "vq": (0.040, (9,), 0, {}),
    "identity": (0.0013, (), 4096, {}),
    "projected": (0.036, (9,), 64, {}),
    "projected_rows": (0.033, (9,), 512, {}),
    "projected_detached": (0.037, (9,), 64, {}),
    "projected_guard": (0.038, (9,), 64, {}),
    "projected_unit": (0.035, (9,), 64, {}),
    "projected_rows_detached": (0.034, (9,), 512, {}),
    "projected_rows_guard": (0.034, (9,), 512, {}),
    "projected_rows_released": (0.033, (9,), 512, {}),
    "frequency_502": (0.040, (9,), 0.0, {"num_frequent": 502}),
    "frequency_412": (0.040, (9,), 0.0, {"num_frequent": 412}),
    "frequency_312": (0.039, (9,), 6.4, {"num_frequent": 312}),
    "frequency_16": (0.030, (9,), 400.0, {"num_frequent": 16}),
    "frequency_8": (0.022, (9,), 1024.0, {"num_frequent": 8}),
    "frequency_4": (0.015, (9,), 2048.0, {"num_frequent": 4}),
    "frequency_released_312": (0.038, (9,), 100.0, {"num_frequent": 312}),
    "combined_8": (0.035, (9,), 30.0, {"num_frequent": 8}),
    "gain_shape_2": (0.029, (9, 2), 0, {"gain_bits": 2}),
    "gain_shape_4": (0.024, (9, 4), 0, {"gain_bits": 4}),
    "gain_shape_8": (0.0235, (9, 8), 0, {"gain_bits": 8}),
    "vq_ema": (0.030, (9,), 0, {}),
    "vq_cosine": (0.031, (9,), 0, {}),
    "vq_rotation": (0.033, (9,), 0, {}),
    "vq_simvq": (0.032, (9,), 0, {}),
    "vq_residual": (0.020, (9, 9), 0, {}),
    "vq_large": (0.024, (13,), 0, {}),
    "fsq": (0.031, (3, 3, 3), 0, {}),
}
THREE = ("vq", "projected", "projected_rows", "vq_ema")
SMALL_RUNS = {name: 3 if name in THREE else 1 for name in (
    "vq", "identity", "projected", "projected_rows", "vq_ema", "vq_residual", "vq_large", "gain_shape_2",
    "gain_shape_4",
    "frequency_8", "combined_8")}  # fmt: skip
SWEEP_RUNS = {name: 5 if name.startswith("projected") else 3 if name == "vq" else 1 for name in MODELS}
RATES = {"vq": ("5e-4", "2e-3", "4e-3"), "projected": ("5e-4", "2e-3"), "vq_ema": ("5e-4", "2e-3")}


def make_study(folder: Path, small: dict[str, int] = SMALL_RUNS, sweep: dict[str, int] = SWEEP_RUNS) -> Path:
    """A repository with both experiments; the dicts say how many seeds of which variant have results."""
    text = (ROOT / "params.yaml").read_text()
    head = text[: text.index("\nruns:")]
    variants = "".join(f"  {name}: {json.dumps({'bottleneck': 'stub'} | options)}\n"
                       for name, (*_, options) in MODELS.items())  # fmt: skip
    (folder / "vqlib" / "bottlenecks").mkdir(parents=True)
    (folder / "vqlib" / "bottlenecks" / "stub.py").write_text(STUB)
    (folder / "params.yaml").write_text(
        f"{head}\nruns:\n  vq-0: {{variant: vq, bottleneck: stub, seed: 0}}\nvariants:\n{variants}"
    )
    for name, runs, steps in ((SMALL, small, 7500), (SWEEP, sweep, 2500)):
        entries = [
            (f"{variant}-{seed}", variant, seed, None) for variant, seeds in runs.items() for seed in range(seeds)
        ]
        if name == SWEEP:
            entries += [
                (f"{variant}-0-lr{rate}", variant, 0, rate) for variant, rates in RATES.items() for rate in rates
            ]
        (folder / "experiments" / name).mkdir(parents=True)
        (folder / "experiments" / name / "params.yaml").write_text(params(name, steps, entries))
        for run, variant, seed, rate in entries:
            write_run(folder, name, run, variant, seed, steps, float(rate or 1e-3))
        (folder / "results" / name / "codecs.json").write_text(json.dumps(codecs(name)))
    return folder


def params(name: str, steps: int, entries: list[tuple]) -> str:
    runs = "".join(
        f"  {run}: {{variant: {variant}, bottleneck: stub, seed: {seed}"
        + (f", learning_rate: {rate}}}\n" if rate else "}\n")
        for run, variant, seed, rate in entries
    )
    return (
        f"root: ../..\nparams: experiments/{name}/params.yaml\nexperiment:\n  name: {name}\n"
        f"  title: Tiny ImageNet at 32 px, made up\n  judges: true\n  data: {{source: tiny_imagenet, image_size: 32}}\n"
        f"  network: {{width: 64, num_embeddings: 512}}\n"
        f"  training: {{steps: {steps}, batch_size: 128, learning_rate: 1e-3}}\n  prior: {{}}\nruns:\n{runs}"
    )


def write_run(root: Path, experiment: str, run: str, variant: str, seed: int, steps: int, rate: float) -> None:
    """The json, csv and png of a run."""
    draw = np.random.default_rng(list(run.encode()))
    mse, symbols, numbers, _ = MODELS[variant]
    mse *= draw.uniform(0.97, 1.03) * (1 + 0.1 * abs(np.log2(rate / 1.4e-3))) * (7500 / steps) ** 0.25
    perplexity = {"vq": 30, "projected": 10, "projected_rows": 15}.get(variant, 380) if symbols else None
    content = {
        "experiment": experiment, "run": run, "variant": variant, "bottleneck": "stub", "seed": seed,
        "provenance": {"hardware": "1 thread of a CPU", "device": "cpu", "precision": "bfloat16", "torch": "2.0",
                       "threads": 1, "source": "tiny_imagenet", "image_size": 32, "resize": "adm",
                       "train_images": 48000, "width": 64, "num_embeddings": 512, "batch_size": 128, "steps": steps,
                       "learning_rate": rate, "best_step": steps, "code": f"{sum(variant.encode()):012x}",
                       "data": "d" * 12},
        "test": metrics(mse, perplexity) | {"mse_8bit": mse * 1.004 if numbers else None,
                                            "psnr_8bit": psnr(mse * 1.004) if numbers else None, "ssim_8bit": None,
                                            "lpips": None, "rfid": None},
        "train": metrics(mse * 0.99, perplexity),
        "rate": rates(variant, mse, symbols, numbers, perplexity),
        "codes": [usage(2**bits, place, perplexity) for place, bits in enumerate(symbols)],
        "gains": gains(draw) if numbers and variant.startswith("proj") else None, "reasons": {},
    }  # fmt: skip
    folder = root / "results" / experiment
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{run}.json").write_text(json.dumps(content))
    history(variant, mse, steps, seed, draw).to_csv(folder / f"{run}.csv", index=False, float_format="%.4g")
    x, y = np.meshgrid(np.arange(16 * 16), np.arange(16))
    originals = np.stack([x * 7 % 256, y * 15, (x // 16) * 16], axis=2).astype(np.uint8)
    blurred = np.clip(originals + draw.normal(0, 255 * mse**0.5 / 2, originals.shape), 0, 255).astype(np.uint8)
    Image.fromarray(np.concatenate([originals, blurred])).save(folder / f"{run}.png")


def psnr(mse: float) -> float:
    return float(f"{10 * np.log10(4 / mse) + 0.6:.4g}")


def metrics(mse: float, perplexity: float | None) -> dict:
    return {"images": 10000, "mse": float(f"{mse:.4g}"), "psnr": psnr(mse), "ssim": float(f"{1 - 9 * mse:.4g}"),
            "quantization": 0.012 if perplexity else None, "projection": None, "perplexity": perplexity,
            "codebook_usage": perplexity and min(1, perplexity / 450)}  # fmt: skip


def rates(variant: str, mse: float, symbols: tuple, numbers: float, perplexity: float | None) -> dict:
    """The section ``rate``: nominal, coded, and the curve over precisions."""
    codes = sum(symbols) / 16 if symbols else None
    coded = codes and codes * np.log2(perplexity) / 9
    curve = [{"bits": bits, "bpp_nominal": (codes or 0) + numbers * bits / 1024,
              "bpp_cross_entropy": (coded or 0) + numbers * min(bits, 0.8 * bits + 1) / 1024,
              "bpp_bitstream": 1.01 * (coded or 0) + numbers * min(bits, 0.8 * bits + 1) / 1024,
              "mse": mse + 0.3 * 4.0**-bits, "psnr": psnr(mse + 0.3 * 4.0**-bits), "ssim": 1 - 9 * mse}
             for bits in (2, 4, 6, 8, 16, 32)] if numbers else []  # fmt: skip
    return {
        "bpp_codes": codes, "bpp_32bit": (codes or 0) + numbers / 32, "bpp_8bit": (codes or 0) + numbers / 128,
        "bpp_entropy": coded, "bpp_cross_entropy": coded, "bpp_bitstream": coded and coded * 1.01, "bpp_mask": None,
        "continuous_fraction": numbers / 4096 if variant.startswith(("freq", "ident")) else min(1, numbers / 64),
        "numbers_per_image": numbers, "table_images": 10000, "precisions": curve,
    }  # fmt: skip


def usage(alphabet: int, place: int, perplexity: float) -> dict:
    shares = np.exp(-np.arange(alphabet) / min(perplexity, alphabet))
    shares /= shares.sum()
    ranks = np.unique(np.geomspace(1, alphabet, 128).round().astype(int)) if alphabet > 128 else np.arange(alphabet) + 1
    return {"alphabet": alphabet, "perplexity": perplexity, "codebook_usage": 0.5,
            "entropy_bits": float(-(shares * np.log2(shares)).sum()), "nominal_bits": int(np.log2(alphabet)),
            "ranks": ranks.tolist(), "shares": shares[ranks - 1].tolist(),
            "levels": shares.tolist() if place and alphabet <= 256 else None}  # fmt: skip


def gains(draw) -> dict:
    counts, edges = np.histogram(draw.normal(1, 0.3, 5000), bins=64)
    return {"edges": edges.tolist(), "shares": (counts / counts.sum()).tolist()}


def history(variant: str, mse: float, steps: int, seed: int, draw) -> pd.DataFrame:
    """The training log; the projected models of odd seeds have a late peak."""
    rows, every = [], steps // 100
    codes = bool(MODELS[variant][1])
    for step in range(every, steps + 1, every):
        loss = mse * (1 + 8 * np.exp(-20 * step / steps)) * draw.uniform(0.98, 1.02)
        peak = 6 if variant in ("projected", "projected_rows") and seed % 2 and step == 80 * every else 1.2
        norm = float(np.exp(-3 * step / steps) * draw.uniform(0.9, 1.1))
        row = {"step": step, "split": "train", "recon_loss": loss, "commitment_loss": loss / 3 if codes else None,
               "codebook_loss": None, "projection_loss": None, "perplexity": 30.0 if codes else None,
               "recon_loss_max": loss * peak, "grad_norm": norm, "grad_norm_max": norm * (40 if peak > 2 else 2.5),
               "smallest_code_norm": 0.0077, "smallest_used_code_norm": 0.02 + step / steps}  # fmt: skip
        if variant.startswith(("frequency", "combined")):
            row["continuous_fraction"] = 0.1 if MODELS[variant][2] else 0.0
        rows.append(row)
        if step % (5 * every) == 0:
            rows.append({"step": step, "split": "validation", "recon_loss": loss * 1.01, "commitment_loss": loss / 3,
                         "perplexity": 30.0 if codes else None})  # fmt: skip
    return pd.DataFrame(rows).assign(epoch=lambda frame: frame["step"] // 375)


def codecs(experiment: str) -> dict:
    """Curves of JPEG and WebP; per-file ones pay for headers."""
    curves = {}
    for name, start in (("jpeg", 20.0), ("webp", 22.0)):
        mosaic = [{"quality": q, "bpp": 0.4 * 1.04**q, "mse": 4 / 10 ** ((start + q / 6) / 10), "psnr": start + q / 6,
                   "ssim": 0.9} for q in range(5, 100, 10)]  # fmt: skip
        curves[name] = {"mosaic": mosaic, "files": [point | {"bpp": point["bpp"] + 4.5} for point in mosaic]}
    return {"experiment": experiment, "data": "d" * 12, "image_size": 32, "images": 2000, "test_images": 10000,
            "mosaic": {"rows": 40, "columns": 50, "tile": 32}, "file_images": 500,
            "versions": {"pillow": "13", "libjpeg": "3", "libwebp": "1.6"},
            "settings": {"jpeg": "baseline, 4:2:0 chroma, optimised Huffman tables", "webp": "lossy, method 6"},
            "codecs": curves}  # fmt: skip
