"""What the runs of an experiment left in results/<experiment>/, checked and as tables. No torch, no data needed."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vqlib.errors import ReportError
from vqlib.params import ROOT, Experiment, load_experiment, load_variants
from vqlib.reporting.tables import half_interval

SUFFIXES = (".json", ".csv", ".png")
EVALUATION = {
    "experiment": (),
    "run": (),
    "variant": (),
    "seed": (),
    "provenance": ("source", "hardware", "train_images", "steps", "batch_size", "width", "code", "data"),
    "test": ("images", "mse", "psnr"),
    "train": ("mse",),
    "rate": ("bpp_codes", "bpp_32bit", "bpp_8bit"),
}
HISTORY = ("step", "split", "recon_loss", "commitment_loss", "perplexity", "recon_loss_max")


@dataclass(frozen=True)
class Results:
    """All that a report is drawn from. Runs and models stand in the order of params.yaml."""

    experiment: Experiment
    variants: list[str]  # every variant of the repository, in order: a model's colour follows from its place
    evaluations: dict[str, dict]  # results/<experiment>/<run>.json by run
    runs: pd.DataFrame  # the same, one row per run: run, variant, seed, test.mse, rate.bpp_codes, ...
    history: pd.DataFrame  # the rows of every run's csv, with run, variant and seed
    strips: dict[str, np.ndarray]  # by run: originals and reconstructions, uint8 (2, N, S, S, 3)
    missing: dict[str, list[str]]  # run -> its files that are not there

    @property
    def models(self) -> list[str]:
        """Variants with at least one run."""
        return list(dict.fromkeys(self.runs["variant"]))

    def runs_of(self, *models: str) -> list[str]:
        """Names of the runs of these variants, of all when none is named."""
        return list(self.runs["run"][self.runs["variant"].isin(models or self.models)])

    def mean(self, model: str, column: str) -> float:
        """Mean over the model's seeds, NaN where the number does not exist."""
        return float(self._seeds(model, column).mean())

    def interval(self, model: str, column: str) -> float:
        """Half the 95 % interval of that mean (Student's t over seeds), NaN for a single seed."""
        values = self._seeds(model, column).dropna()
        return half_interval(values.to_numpy())

    def _seeds(self, model: str, column: str) -> pd.Series:
        if column not in self.runs:
            return pd.Series(dtype=float)
        return self.runs.loc[self.runs["variant"] == model, column].astype(float)


def load_results(name: str, root: Path = ROOT) -> Results:
    """Read the results of every run that the experiment's params.yaml names; those without are listed as missing.

    Raises:
        ParameterError: there is no such experiment.
        ReportError: no run has results, or a file is damaged.
    """
    experiment = load_experiment(name, root)
    folder = experiment.results
    lacking = {run: [suffix for suffix in SUFFIXES if not (folder / f"{run}{suffix}").is_file()]
               for run in experiment.runs}  # fmt: skip
    missing = {run: [f"{run}{suffix}" for suffix in suffixes] for run, suffixes in lacking.items() if suffixes}
    found = [run for run in experiment.runs if run not in missing]
    if not found:
        raise ReportError(f"results/{name}: no run of {', '.join(experiment.runs)} has results; train and evaluate one")
    evaluations = {run: _evaluation(folder / f"{run}.json", name, experiment.runs[run].variant.name) for run in found}
    strips = {run: _strip(folder / f"{run}.png") for run in found}
    for run in found:
        if not np.array_equal(strips[run][0], strips[found[0]][0]):
            raise ReportError(f"results/{name}/{run}.png shows other images than {found[0]}.png; evaluate both again")
    return Results(
        experiment=experiment,
        variants=list(load_variants(root)),
        evaluations=evaluations,
        runs=pd.json_normalize(list(evaluations.values())),
        history=pd.concat([_history(folder / f"{run}.csv", evaluations[run]) for run in found], ignore_index=True),
        strips=strips,
        missing=missing,
    )


def _evaluation(path: Path, experiment: str, variant: str) -> dict:
    where = f"results/{experiment}/{path.name}"
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ReportError(f"{where}: not valid JSON ({error}); evaluate {path.stem} again") from None
    for section, keys in EVALUATION.items():
        for path_to in ((section,), *((section, key) for key in keys)):
            if not _holds(content, path_to):
                raise ReportError(f"{where}: the key {'.'.join(path_to)!r} is missing; evaluate {path.stem} again")
    for key, expected in (("experiment", experiment), ("run", path.stem), ("variant", variant)):
        if content[key] != expected:
            raise ReportError(f"{where}: {key} is {content[key]!r}; it must be {expected!r}")
    return content


def _holds(content: object, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _history(path: Path, evaluation: dict) -> pd.DataFrame:
    where = f"results/{evaluation['experiment']}/{path.name}"
    try:
        rows = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise ReportError(f"{where}: not a table ({error}); train {path.stem} again") from None
    for column in HISTORY:
        if column not in rows:
            raise ReportError(f"{where}: the column {column!r} is missing; train {path.stem} again")
    return rows.assign(**{key: evaluation[key] for key in ("run", "variant", "seed")})


def _strip(path: Path) -> np.ndarray:
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
