"""What a verdict is, and the words in which verdicts speak. The rules themselves are in claims and disagreements."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import pandas as pd

from vqlib.reporting import paper
from vqlib.reporting.results import Results
from vqlib.reporting.statistics import ENOUGH, Ratio
from vqlib.reporting.tables import number

REPRODUCED, NOT_REPRODUCED, OPEN = "reproduced", "not reproduced", "open"
CONFIRMED, REFUTED = "confirmed", "refuted"
PAPER_WIDTH = paper.SETTING["width"]  # under which the released axis has too few numbers to be judged
PAPER_STEPS = paper.SETTING["steps"]


@dataclass(frozen=True)
class Verdict:
    """``said`` in a word or a few, and what for: ``evidence`` in sentences, with every number in ``numbers`` too."""

    said: str
    evidence: str
    numbers: dict[str, float] = field(default_factory=dict)
    runs: tuple[tuple[str, str], ...] = ()  # (experiment, run)
    exhibits: tuple[str, ...] = ()  # names of figures and tables of those experiments' reports

    @property
    def experiments(self) -> list[str]:
        return list(dict.fromkeys(experiment for experiment, _ in self.runs))


Study = Sequence[Results]  # experiments in the order in which they judge: see `judges`


@dataclass(frozen=True)
class Claim:
    """A claim or disagreement, the rule by which it is judged, and that rule as a function of results."""

    name: str
    statement: str
    rule: str
    judge: Callable[[Study], Verdict]


def judges(experiments: Sequence[Results]) -> list[Results]:
    """Those whose params.yaml says that they judge: those with seeds enough for an interval first, then the nearest to
    the paper's setting, by width and then by steps."""
    judging = [results for results in experiments if results.experiment.judges]
    return sorted(judging, key=lambda results: (not has_seeds(results), -width(results), -steps(results)))


def has_seeds(results: Results) -> bool:
    """Whether any model has enough seeds for an interval."""
    return any(len(results.runs_of(model)) >= ENOUGH for model in results.models)


def width(results: Results) -> int:
    return int(results.runs["provenance.width"].max())


def steps(results: Results) -> int:
    return int(results.runs["provenance.steps"].max())


def enough(study: Study, *models: str, seeds: int = ENOUGH, at_least: int = 1, fewest_steps: int = 1) -> Results | None:
    """The first experiment of that width and length or more with as many seeds of every model, else None."""
    for results in study:
        large = width(results) >= at_least and steps(results) >= fewest_steps
        if large and all(len(results.runs_of(model)) >= seeds for model in models):
            return results
    return None


def lacking(study: Study, *models: str, seeds: int = ENOUGH, at_least: int = 1, fewest_steps: int = 1) -> Verdict:
    """The open verdict that says which runs would settle it."""
    wide = f" at width {at_least} or more" if at_least > 1 else ""
    wide += f" and {fewest_steps:,} steps" if fewest_steps > 1 else ""
    several = f"{seeds} seeds" if seeds > 1 else "a run"
    have = ", ".join(
        f"`{results.experiment.name}` ({at(results)}) has "
        + (" and ".join(f"{len(results.runs_of(model))} of `{model}`" for model in models if results.runs_of(model))
           or f"none of {'it' if len(models) == 1 else 'them'}")
        for results in study
    )  # fmt: skip
    wanted = " and ".join(f"`{model}`" for model in models)
    return Verdict(OPEN, f"Needs {several} of {wanted}{wide} in one experiment{f'; {have}' if have else ''}.")


def named(results: Results, *models: str) -> tuple[tuple[str, str], ...]:
    """The runs of these models, for ``Verdict.runs``."""
    return tuple((results.experiment.name, run) for run in results.runs_of(*models))


def scoped(said: str, results: Results, models: str = "") -> str:
    """A verdict with the models that it is about, and its setting where that is smaller than the paper's. What is open
    stays so."""
    if said == OPEN:
        return said
    small = width(results) < PAPER_WIDTH or steps(results) < PAPER_STEPS
    return f"{said}{f' for {models}' if models else ''}{f' at {at(results)}' if small else ''}"


def tendency(said: str, results: Results, *models: str, among: Collection[str] | None = None) -> str:
    """``said``, with the word that it is no more than a tendency where one of the models has too few seeds for an
    interval (``among`` these runs, where given). What is open stays so."""
    seeds = [sum(among is None or run in among for run in results.runs_of(model)) for model in models]
    return said if said == OPEN or min(seeds) >= ENOUGH else f"{said}, a tendency"


def is_copy_of_vq(results: Results, run: str) -> bool:
    """Whether the run belongs to a variant with S frequent codes and none of its positions was continuous, in training
    or in the test: it is `vq` of its seed, and no run of its own."""
    if results.experiment.runs[run].variant.options.get("num_frequent") is None:
        return False
    logged = results.of(run).get("continuous_fraction", pd.Series(dtype=float))
    return results.evaluations[run]["rate"].get("continuous_fraction") == 0 and not (logged > 0).any()


def interval(found: Ratio) -> str:
    """``0.91 (0.88 to 0.94)``, without the interval where there is none."""
    if found.low != found.low:
        return number(found.value, digits=3)
    return f"{number(found.value, digits=3)} ({number(found.low, digits=3)} to {number(found.high, digits=3)})"


def at(results: Results) -> str:
    """The setting in which numbers were found, for a sentence."""
    return f"width {width(results)}, {steps(results):,} steps"
