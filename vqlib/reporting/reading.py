"""The files of results/<experiment>/, read and checked: what is damaged, or of another run, is one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vqlib.errors import ReportError
from vqlib.params import Experiment, Run

PROVENANCE = ("source", "image_size", "hardware", "train_images", "steps", "batch_size", "width", "num_embeddings",
              "learning_rate", "code", "data")  # fmt: skip
EVALUATION: dict[str, tuple[str, ...]] = {
    "experiment": (),
    "run": (),
    "variant": (),
    "seed": (),
    "provenance": PROVENANCE,
    "test": ("images", "mse", "psnr"),
    "train": ("mse",),
    "rate": ("bpp_codes", "bpp_32bit", "bpp_8bit"),
}
NO_PRIOR: dict[str, tuple[str, ...]] = {"run": (), "variant": (), "reason": ()}  # with the reason why there is none
PRIOR = NO_PRIOR | {
    "chosen": (),
    "rate": ("bpp_nominal", "bpp_order0", "bpp_prior", "bpp_codes_order0", "bpp_codes_prior", "latent_bits_per_value"),
    "codes": (),
    "reals": (),
    "bitstream": (),
    "samples": ("sliced_wasserstein", "code_pairs"),
    "provenance": ("hardware",),
}
CODECS = {"images": (), "file_images": (), "mosaic": (), "settings": (), "codecs": ()}
HISTORY = ("step", "split", "recon_loss", "commitment_loss", "perplexity", "recon_loss_max")


def unlike(evaluations: dict[str, dict], experiment: Experiment) -> dict[str, str]:
    """By run, what in its results is not as params.yaml says now, or which data it has where most have others."""
    digests = [evaluation["provenance"]["data"] for evaluation in evaluations.values()]
    usual = max(dict.fromkeys(digests), key=digests.count)
    found = {}
    for run, evaluation in evaluations.items():
        expected = {
            "steps": experiment.training.steps,
            "batch_size": experiment.training.batch_size,
            "learning_rate": experiment.runs[run].learning_rate,
            "width": experiment.network.width,
            "image_size": experiment.data.image_size,
            "source": experiment.data.source,
            "data": usual,
        }
        has = {"data": "other runs have", **dict.fromkeys(list(expected)[:-1], "params.yaml has")}
        told = [f"{key} {evaluation['provenance'][key]}, {has[key]} {value}" for key, value in expected.items()
                if evaluation["provenance"][key] != value]  # fmt: skip
        if told:
            found[run] = "; ".join(told)
    return found


def read_json(path: Path, remedy: str, keys: dict[str, tuple[str, ...]]) -> dict | None:
    """The content of an optional file with these keys, None where there is no file."""
    if not path.is_file():
        return None
    where = f"results/{path.parent.name}/{path.name}"
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ReportError(f"{where}: not valid JSON ({error}); {remedy}") from None
    for section, inner in keys.items():
        for path_to in ((section,), *((section, key) for key in inner)):
            if not _holds(content, path_to):
                raise ReportError(f"{where}: the key {'.'.join(path_to)!r} is missing; {remedy}")
    return content


def _holds(content: object, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def read_evaluation(path: Path, experiment: Experiment, run: Run) -> dict:
    where, remedy = f"results/{experiment.name}/{path.name}", f"evaluate {path.stem} again"
    content = read_json(path, remedy, EVALUATION)
    for key, expected in (("experiment", experiment.name), ("run", run.name), ("variant", run.variant.name),
                          ("seed", run.seed)):  # fmt: skip
        if content[key] != expected:
            raise ReportError(f"{where}: {key} is {content[key]!r}; it must be {expected!r}")
    for section in ("test", "train", "rate", "provenance"):
        for key, value in content[section].items():
            of_text = section == "provenance" and isinstance(value, str)
            if key in EVALUATION[section] and not (value is None or of_text or isinstance(value, (int, float))):
                raise ReportError(f"{where}: {section}.{key} is {value!r}; it must be one value; {remedy}")
    return content


def read_prior(path: Path, evaluation: dict) -> dict | None:
    """The measurements of a run's prior, None where there is no such file."""
    remedy = "fit it again"
    content = read_json(path, remedy, NO_PRIOR)
    if content is None:
        return None
    for key in ("run", "variant"):
        if content[key] != evaluation[key]:
            raise ReportError(f"results/{path.parent.name}/{path.name}: {key} is {content[key]!r}; it must be "
                              f"{evaluation[key]!r}; {remedy}")  # fmt: skip
    return content if content["reason"] else read_json(path, remedy, PRIOR)


def of_other_weights(prior: dict, evaluation: dict) -> bool:
    """Whether the prior was fitted to a model that is not the one that was measured."""
    if prior["reason"]:
        return False
    fitted, measured = (content["provenance"].get("weights") for content in (prior, evaluation))
    return fitted is not None and fitted != measured


def read_history(path: Path, evaluation: dict) -> pd.DataFrame:
    where, remedy = f"results/{evaluation['experiment']}/{path.name}", f"train {path.stem} again"
    try:
        rows = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise ReportError(f"{where}: not a table ({error}); {remedy}") from None
    for column in HISTORY:
        if column not in rows:
            raise ReportError(f"{where}: the column {column!r} is missing; {remedy}")
    for column in rows.columns.drop("split"):
        if not pd.api.types.is_numeric_dtype(rows[column]):
            wrong = rows[column][pd.to_numeric(rows[column], errors="coerce").isna() & rows[column].notna()].iloc[0]
            raise ReportError(f"{where}: {column} has {wrong!r}; it must be numbers; {remedy}")
    for split in ("train", "validation"):
        if rows.loc[rows["split"] == split, "recon_loss"].isna().all():
            raise ReportError(f"{where}: no row has an error on the split {split}; {remedy}")
    last, steps = rows["step"].max(), evaluation["provenance"]["steps"]
    if last != steps:
        raise ReportError(f"{where}: it ends at step {last:g} and {path.stem}.json was trained for {steps}; {remedy}")
    return rows.assign(**{key: evaluation[key] for key in ("run", "variant", "seed")})


def read_strip(path: Path) -> np.ndarray:
    """(2S, N*S, 3) pixels to (2, N, S, S, 3)."""
    where = f"results/{path.parent.name}/{path.name}"
    try:
        pixels = np.asarray(Image.open(path).convert("RGB"))
    except OSError as error:
        raise ReportError(f"{where}: not an image ({error}); evaluate {path.stem} again") from None
    height, width, _ = pixels.shape
    size = height // 2
    if size == 0 or height % 2 or width % size:
        raise ReportError(f"{where} is {width} x {height} pixels; it must be two rows of square thumbnails")
    return pixels.reshape(2, size, width // size, size, 3).swapaxes(1, 2)
