"""The files of results/<experiment>/, read and checked: what is damaged, or of another run, is one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vqlib.errors import ReportError
from vqlib.params import Experiment, Run

PROVENANCE = ("source", "image_size", "resize", "hardware", "train_images", "steps", "batch_size", "width",
              "num_embeddings", "learning_rate", "code", "data")  # fmt: skip
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
KINDS: dict[str, tuple[type | tuple[type, ...], tuple[str, ...]]] = {  # of what stands under a key of any of these
    "a mapping": (dict, ("rate", "codes", "samples", "sliced_wasserstein", "code_pairs", "provenance", "mosaic",
                         "settings", "codecs")),
    "a mapping or null": ((dict, type(None)), ("reals", "bitstream")),
    "a whole number": (int, ("images", "file_images")),
}  # fmt: skip
HISTORY = ("step", "split", "recon_loss", "commitment_loss", "perplexity", "recon_loss_max")


def unlike(evaluations: dict[str, dict], experiment: Experiment) -> dict[str, str]:
    """By run, what in its results is not as params.yaml says now, or which data it has where most have others.

    Compared are the settings that results have: not a variant's arguments and weights of losses.

    Raises:
        ReportError: as many runs have one data as another.
    """
    of_data: dict[str, list[str]] = {}
    for run, evaluation in evaluations.items():
        of_data.setdefault(evaluation["provenance"]["data"], []).append(run)
    usual, *others = sorted(of_data, key=lambda digest: -len(of_data[digest]))
    if others and len(of_data[others[0]]) == len(of_data[usual]):
        told = " and ".join(f"{digest} ({', '.join(of_data[digest])})" for digest in (usual, others[0]))
        raise ReportError(
            f"results/{experiment.name}: as many runs have the data {told}; train those with old ones again"
        )
    found = {}
    for run, evaluation in evaluations.items():
        variant = experiment.runs[run].variant
        expected = {
            "steps": experiment.training.steps,
            "batch_size": experiment.training.batch_size,
            "learning_rate": experiment.runs[run].learning_rate,
            "width": experiment.network.width,
            "num_embeddings": variant.options.get("num_embeddings", experiment.network.num_embeddings),
            "image_size": experiment.data.image_size,
            "source": experiment.data.source,
            "resize": experiment.data.resize,
        }
        has = evaluation["provenance"]
        told = [f"{key} {has[key]}, params.yaml has {value}" for key, value in expected.items() if has[key] != value]
        told += [f"data {has['data']}, other runs have {usual}"] * (has["data"] != usual)
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
            value = content[section] if len(path_to) == 1 else content[section][path_to[1]]
            for named, (kinds, names) in KINDS.items():
                if path_to[-1] in names and not isinstance(value, kinds):
                    raise ReportError(f"{where}: {'.'.join(path_to)} is {value!r}; it must be {named}; {remedy}")
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
    for section in ("test", "train", "rate"):
        _numbers(content, section, EVALUATION[section], where, remedy)
    for key in PROVENANCE:
        value = content["provenance"][key]
        if value is None or isinstance(value, (list, dict)):
            raise ReportError(f"{where}: provenance.{key} is {value!r}; it must be one value; {remedy}")
    return content


def _numbers(content: dict, section: str, needed: tuple[str, ...], where: str, remedy: str) -> None:
    """Refuse text in a section, and what is no number under a needed key. A model without codes has no bpp_codes."""
    for key, value in content[section].items():
        if key in needed and key != "bpp_codes":
            right = isinstance(value, (int, float))
        else:
            right = not isinstance(value, str) and not (key in needed and isinstance(value, (list, dict)))
        if not right:
            raise ReportError(f"{where}: {section}.{key} is {value!r}; it must be a number; {remedy}")


def read_prior(path: Path, evaluation: dict) -> dict | None:
    """The measurements of a run's prior, None where there is no such file."""
    where, remedy = f"results/{path.parent.name}/{path.name}", "fit it again"
    content = read_json(path, remedy, NO_PRIOR)
    if content is None:
        return None
    for key in ("run", "variant"):
        if content[key] != evaluation[key]:
            raise ReportError(f"{where}: {key} is {content[key]!r}; it must be {evaluation[key]!r}; {remedy}")
    if not content["reason"]:
        read_json(path, remedy, PRIOR)
        _numbers(content, "rate", PRIOR["rate"], where, remedy)
    return content


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
