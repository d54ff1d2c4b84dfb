"""What the runs of an experiment left in results/<experiment>/, checked and as tables. No torch, no data needed."""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from vqlib.errors import ReportError
from vqlib.params import ROOT, Experiment, load_experiment, load_variants
from vqlib.reporting.families import in_order
from vqlib.reporting.reading import (
    CODECS,
    of_other_weights,
    read_evaluation,
    read_history,
    read_json,
    read_prior,
    read_strip,
    unlike,
)
from vqlib.reporting.statistics import Ratio, ratio
from vqlib.reporting.tables import half_interval

SUFFIXES = (".json", ".csv", ".png")
PRECISION = ("bpp_nominal", "bpp_cross_entropy", "bpp_bitstream", "mse", "psnr", "ssim")
RATE_IN_NAME = re.compile(r"-lr\d")
TIE = 0.01  # of the validation MSE: rates nearer than that are as good, since seeds of a model differ by more


@dataclass(frozen=True)
class Results:
    """All that a report is drawn from. Models stand family by family, else in the order of params.yaml.

    A run whose name carries a learning rate (``vq-0-lr2e-3``) belongs to the grid of rates: it is in ``grid``, and in
    ``runs`` only if its variant has no other runs and its rate is the variant's best on the validation split.
    """

    experiment: Experiment
    variants: list[str]  # every variant of the repository, in order: a model's colour follows from its place
    evaluations: dict[str, dict]  # results/<experiment>/<run>.json by run
    grid: pd.DataFrame  # the same, one row per run: run, variant, seed, validation_mse, test.mse, rate.bpp_codes, ...
    runs: pd.DataFrame  # the rows of it that figures and tables compare
    history: pd.DataFrame  # the rows of every run's csv, with run, variant and seed
    strips: dict[str, np.ndarray]  # by run: originals and reconstructions, uint8 (2, N, S, S, 3)
    left_out: dict[str, str]  # run, or file of one, that is left out -> why, in words
    codecs: dict | None = None  # codecs.json: JPEG and WebP on the same test images
    priors: dict[str, dict] = field(default_factory=dict)  # <run>.prior.json by run, where there is one

    @property
    def models(self) -> list[str]:
        """Variants with at least one run."""
        return list(dict.fromkeys(self.runs["variant"]))

    def runs_of(self, *models: str) -> list[str]:
        """Names of the runs of these variants, of all when none is named."""
        return list(self.runs["run"][self.runs["variant"].isin(models or self.models)])

    def mean(self, model: str, column: str) -> float:
        """Mean over the model's seeds, NaN where the number does not exist."""
        return float(self.seeds(model, column).mean())

    def interval(self, model: str, column: str) -> float:
        """Half the 95 % interval of that mean (Student's t over seeds), NaN for a single seed."""
        values = self.seeds(model, column).dropna()
        return half_interval(values.to_numpy())

    def seeds(self, model: str, column: str) -> pd.Series:
        """The numbers of the model's runs, empty where there is no such column."""
        if column not in self.runs:
            return pd.Series(dtype=float)
        return self.runs.loc[self.runs["variant"] == model, column].astype(float)

    def ratio(self, model: str, other: str, column: str = "test.mse") -> Ratio:
        """Mean of a model over that of another, with its 95 % interval over seeds."""
        return ratio(*(self.seeds(one, column).dropna().to_numpy() for one in (model, other)))

    def of(self, run: str) -> pd.DataFrame:
        """The history of one run."""
        return self.history[self.history["run"] == run]

    def precisions(self, model: str) -> pd.DataFrame:
        """The curve of a model with continuous latents: a row per run and bits, as rate.precisions of its json."""
        rows = [{"run": run, **point} for run in self.runs_of(model)
                for point in self.evaluations[run]["rate"].get("precisions") or []]  # fmt: skip
        return pd.DataFrame(rows, columns=["run", "bits", *PRECISION])

    def tuned(self) -> "Results":
        """The same of the models that were tried at several learning rates, each with its runs at the one that
        validation chose in ``runs``."""
        searched = self.grid[self.grid.groupby("variant")["learning_rate"].transform("nunique") > 1]
        best = {variant: chosen_rate(runs) for variant, runs in searched.groupby("variant")}
        own = searched[searched["learning_rate"] == searched["variant"].map(best)]
        return dataclasses.replace(self, runs=own.reset_index(drop=True))

    def option(self, model: str, key: str) -> object:
        """A number that the variant is given in params.yaml, None where it has none of that name."""
        runs = self.runs_of(model)
        return self.experiment.runs[runs[0]].variant.options.get(key) if runs else None


def load_results(name: str, root: Path = ROOT) -> Results:
    """Read the results of every run that the experiment's params.yaml names. Runs without, and what was made with other
    settings, data or weights than it says now, are left out and listed.

    Raises:
        ParameterError: there is no such experiment.
        ReportError: no run has results, or a file is damaged.
    """
    experiment = load_experiment(name, root)
    folder = experiment.results
    lacking = {run: [suffix for suffix in SUFFIXES if not (folder / f"{run}{suffix}").is_file()]
               for run in experiment.runs}  # fmt: skip
    left_out = {run: f"no {', '.join(f'{run}{suffix}' for suffix in suffixes)}"
               for run, suffixes in lacking.items() if suffixes}  # fmt: skip
    found = [run for run in experiment.runs if run not in left_out]
    order = in_order(experiment.runs[run].variant.name for run in found)
    found.sort(key=lambda run: order.index(experiment.runs[run].variant.name))
    if not found:
        raise ReportError(f"results/{name}: no run of {', '.join(experiment.runs)} has results; train and evaluate one")
    evaluations = {run: read_evaluation(folder / f"{run}.json", experiment, experiment.runs[run]) for run in found}
    others = unlike(evaluations, experiment)
    if len(others) == len(found):
        raise ReportError(
            f"results/{name}: no run is of the settings in params.yaml: {found[0]} has {others[found[0]]}"
        )
    left_out |= others
    found = [run for run in found if run not in others]
    evaluations = {run: evaluations[run] for run in found}
    strips = {run: read_strip(folder / f"{run}.png") for run in found}
    for run in found:
        if not np.array_equal(strips[run][0], strips[found[0]][0]):
            raise ReportError(f"results/{name}/{run}.png shows other images than {found[0]}.png; evaluate both again")
    history = pd.concat([read_history(folder / f"{run}.csv", evaluations[run]) for run in found], ignore_index=True)
    priors = {run: prior for run in found if (prior := read_prior(folder / f"{run}.prior.json", evaluations[run]))}
    for run in [run for run, prior in priors.items() if of_other_weights(prior, evaluations[run])]:
        left_out[f"{run}.prior.json"] = f"its weights are not those of {run}.json; fit it again"
        del priors[run]
    codecs = read_json(folder / "codecs.json", "run the stage codecs again", CODECS)
    if codecs and codecs.get("data", data := evaluations[found[0]]["provenance"]["data"]) != data:
        left_out["codecs.json"] = f"data {codecs['data']}, where the runs have {data}; run the stage codecs again"
        codecs = None
    return Results(
        experiment=experiment,
        variants=list(load_variants(root)),
        evaluations=evaluations,
        history=history,
        strips=strips,
        left_out=left_out,
        codecs=codecs,
        priors=priors,
        **tables(experiment, evaluations, history),
    )


def tables(experiment: Experiment, evaluations: dict[str, dict], history: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """``grid`` and ``runs`` of Results."""
    grid = pd.json_normalize(list(evaluations.values()))
    least = history[history["split"] == "validation"].groupby("run")["recon_loss"].min()
    grid["validation_mse"] = grid["run"].map(least)
    grid["rate.bpp_bitstream_8bit"] = [all_at_8_bits(evaluation["rate"]) for evaluation in evaluations.values()]
    grid["gains.std"] = [deviation_of(evaluation.get("gains")) for evaluation in evaluations.values()]
    grid["learning_rate"] = [experiment.runs[run].learning_rate for run in grid["run"]]
    return {"grid": grid, "runs": grid[grid["run"].isin(compared(grid))].reset_index(drop=True)}


def all_at_8_bits(rate: dict) -> float:
    """Bits per pixel of the bitstream of codes and of continuous numbers at 8 bits, NaN where none was measured."""
    streams = {point["bits"]: point["bpp_bitstream"] for point in rate.get("precisions") or []}
    value = streams.get(8) if streams else rate.get("bpp_bitstream")
    return math.nan if value is None else float(value)


def deviation_of(histogram: dict | None) -> float:
    """The standard deviation of a histogram of continuous gains (edges, shares), NaN without one. Gains outside its
    range count in the outermost bins."""
    if not histogram:
        return math.nan
    edges, shares = np.asarray(histogram["edges"]), np.asarray(histogram["shares"])
    middles = (edges[1:] + edges[:-1]) / 2
    mean = np.average(middles, weights=shares)
    return float(np.sqrt(np.average((middles - mean) ** 2, weights=shares)))


def compared(grid: pd.DataFrame) -> list[str]:
    """The runs that stand for their variants: those without a learning rate in the name, else of the best rate."""
    chosen: list[str] = []
    for _, runs in grid.groupby("variant", sort=False):
        plain_name = ~runs["run"].str.contains(RATE_IN_NAME, regex=True)
        if plain_name.any():
            chosen += list(runs["run"][plain_name])
        else:
            chosen += list(runs["run"][runs["learning_rate"] == chosen_rate(runs)])
    return chosen


def errors_by_rate(runs: pd.DataFrame) -> pd.Series:
    """Least validation MSE of one variant by learning rate, at the rates of the seed that ran at most of them (of a tie
    the lowest seed), as a mean over the seeds that ran at all of these: the same seeds at every rate."""
    errors = runs.pivot_table(index="seed", columns="learning_rate", values="validation_mse")
    seed = errors.notna().sum(axis="columns").idxmax()
    return errors.loc[:, errors.loc[seed].notna()].dropna().mean()


def chosen_rate(runs: pd.DataFrame) -> float:
    """The learning rate of the least of ``errors_by_rate``; of a tie, the lowest one."""
    means = errors_by_rate(runs)
    return float(means.index[means <= means.min() * (1 + TIE)].min())
