"""C2, whether training with projection is unstable, and by what. The rules stand in claims.py and LOG.md."""

import dataclasses
import math
from collections.abc import Collection

import pandas as pd
from scipy.stats import fisher_exact

from vqlib.params import short
from vqlib.reporting.families import is_quiet
from vqlib.reporting.judging import (
    CONFIRMED,
    ENOUGH,
    NOT_REPRODUCED,
    OPEN,
    PAPER_STEPS,
    REPRODUCED,
    Study,
    Verdict,
    at,
    enough,
    is_copy_of_vq,
    lacking,
    named,
    scoped,
    steps,
)
from vqlib.reporting.results import Results
from vqlib.reporting.statistics import (
    BURST,
    burst,
    end_over_best,
    highest_step,
    late_peaks,
    least_used_norm,
    log_interval,
)
from vqlib.reporting.tables import number

SEEDS, P = 5, 0.05
INTERVENTIONS = {  # by the axis that they change
    "projected": ("projected_detached", "projected_guard", "projected_unit"),
    "projected_rows": ("projected_rows_detached", "projected_rows_guard"),
}
SHOWN = ("projected_training", "stability")


def stability_of(results: Results, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Peaks, bursts of the gradient and least norm of a code in use: a row for each of ``runs``, rows of
    ``results.grid``, or else for each run that figures compare."""
    runs = results.runs if runs is None else runs
    rows = []
    for variant, run in zip(runs["variant"], runs["run"], strict=True):
        history = results.of(run)
        norm = math.nan if variant.endswith("_unit") else least_used_norm(history)  # those codes are divided by theirs
        rows.append({"variant": variant, "run": run, "late_peaks": len(late_peaks(history)),
                     "rise": highest_step(history), "burst": burst(history),
                     "least_used_norm": norm, "end_over_best": end_over_best(history)})  # fmt: skip
    return pd.DataFrame(rows)


def unstable(model: str):
    """The judge of C2 for a model: late peaks more often than where nothing is divided by a norm."""

    def judge(study: Study) -> Verdict:
        results = most_telling(study, model)
        if results is None:
            return lacking(study, model, seeds=SEEDS)
        table = stability_of(results)
        copies = table["run"].map(lambda run: is_copy_of_vq(results, run))
        own, others = table[table["variant"] == model], table[table["variant"].map(is_quiet) & ~copies]
        (hits, of), (other_hits, other_of) = peaks_of(own), peaks_of(others)
        said, needs = decided(model, hits, of, other_hits, other_of, at_length=steps(results) >= PAPER_STEPS)
        p = fisher_greater(hits, of, other_hits, other_of)
        bursts = [int((part["burst"] > BURST).sum()) for part in (own, others)]
        elsewhere = {one.experiment.name: (peaks_of(stability_of(one).query("variant == @model")), at(one))
                     for one in study if one is not results and one.runs_of(model)}  # fmt: skip
        evidence = [
            f"{hits} of {of} runs of `{model}` have a late peak, {other_hits} of {other_of} runs of models with a "
            f"codebook that divide by no norm (Fisher's exact p {number(p, 2)}; {at(results)}).",
            unlike_rates(results, model, own["run"], others["run"]),
        ]
        if own["burst"].notna().all() and others["burst"].notna().all():
            told = f"{bursts[0]} and {bursts[1]} of them"
            evidence.append(f"A burst of the gradient above {BURST:g}, which does not vote: {told}.")
        if copies.any():
            evidence.append(f"Not counted, since they are `vq`: {', '.join(table['run'][copies])}.")
        if elsewhere:
            told = ", ".join(f"{found} of {among} in `{name}` ({where})"
                             for name, ((found, among), where) in elsewhere.items())  # fmt: skip
            evidence.append(f"Elsewhere, and no judgement: {told}.")
        if needs:
            evidence.append(f"Needs {needs}.")
        numbers = {"hits": hits, "of": of, "other_hits": other_hits, "other_of": other_of, "p": p,
                   "bursts": bursts[0], "other_bursts": bursts[1]}  # fmt: skip
        numbers |= {f"{name}.hits": found for name, ((found, _), _) in elsewhere.items()}
        runs = named(results, model) + tuple((results.experiment.name, run) for run in others["run"])
        return Verdict(scoped(said, results), " ".join(filter(None, evidence)), numbers, runs, SHOWN)

    return judge


def most_telling(study: Study, model: str) -> Results | None:
    """The experiment with seeds enough of the model to judge, else for an interval, and the longest of such; None where
    none has a run of it."""

    def how_telling(one: Results) -> tuple:
        seeds = len(one.runs_of(model))
        return seeds >= SEEDS, seeds >= ENOUGH, steps(one), seeds

    found = max(study, key=how_telling, default=None)
    return found if found is not None and found.runs_of(model) else None


def decided(model: str, hits: int, of: int, other_hits: int, other_of: int, at_length: bool) -> tuple[str, str]:
    """C2's rule: the verdict, and where it is open what would settle it.

    Args:
        hits, of: runs with a late peak, and runs, of the model; ``other_`` those that divide by no norm.
        at_length: whether these ran as long as the paper's.
    """
    if of < SEEDS:
        return OPEN, f"{SEEDS} seeds of `{model}`"
    if fisher_greater(hits, of, other_hits, other_of) < P:
        return REPRODUCED, ""
    if fisher_greater(of, of, 0, other_of) >= P:
        return OPEN, "more runs that divide by no norm: with so few no share is greater"
    if not at_length:
        return OPEN, f"the paper's {PAPER_STEPS:,} steps: late peaks may come later than these runs end"
    if hits * other_of <= other_hits * of:
        return NOT_REPRODUCED, ""
    return OPEN, "more seeds: the share is greater, by chance or not"


def unlike_rates(results: Results, model: str, own: Collection[str], others: Collection[str]) -> str:
    """A sentence on the learning rates of two groups of runs, where they differ."""
    rates = [rates_in_words(results, runs) for runs in (own, others)]
    if not len(others) or rates[0] == rates[1]:
        return ""
    return f"`{model}` ran at a learning rate of {rates[0]}, the others at {rates[1]}."


def rates_in_words(results: Results, runs: Collection[str]) -> str:
    """The learning rates of these runs, from the lowest."""
    rates = results.runs["learning_rate"][results.runs["run"].isin(list(runs))]
    return " or ".join(short(rate) for rate in sorted(set(rates)))


def peaks_of(table: pd.DataFrame) -> tuple[int, int]:
    """How many of these rows of ``stability_of`` have a late peak, and of how many."""
    return int((table["late_peaks"] > 0).sum()), len(table)


def cause(model: str):
    """The judge of C2's suspected cause: the interventions beside the original."""
    interventions = INTERVENTIONS[model]

    def judge(study: Study) -> Verdict:
        results = enough(study, model, *interventions)
        if results is None:
            return uncured(study, model, lacking(study, model, *interventions))
        table = stability_of(results).set_index("variant")
        unknown = table.loc[[model, *interventions]].query("burst.isna()")["run"]
        if len(unknown):
            return Verdict(OPEN, f"Needs gradient norms in the logs of {', '.join(f'`{run}`' for run in unknown)}.")
        unrest = {variant: unrest_of(table.loc[[variant]]) for variant in (model, *interventions)}
        share = {variant: hits / of for variant, (hits, of) in unrest.items()}
        bursts = {variant: table.loc[[variant], "burst"].median() for variant in unrest}
        told = ", ".join(f"`{variant}` {hits} of {of} (median burst {number(bursts[variant], 3)})"
                         for variant, (hits, of) in unrest.items())  # fmt: skip
        evidence = (
            f"Runs with a late peak or a burst of the gradient above {BURST:g}: {told} ({at(results)}, logged every "
            f"{logged_every(results)} steps)."
        )
        where = f"{rates_in_words(results, table['run'].loc[[model, *interventions]])}, {at(results)}"
        others = bursts_elsewhere(results, model)
        if others:
            told = ", ".join(f"{number(value, 3)} in `{run}`" for run, value in others.items())
            evidence += f" At other learning rates, which do not vote, the burst is {told}."
        if share[model] <= 0.5:
            said, evidence = OPEN, f"{evidence} The original itself is quiet at this length: needs longer runs."
        elif all(share[variant] < 0.5 for variant in interventions):
            peaks = {variant: (table.loc[[variant], "late_peaks"] > 0).mean() for variant in unrest}
            of_peaks = peaks[model] > 0.5 and all(peaks[variant] < 0.5 for variant in interventions)
            said = f"{CONFIRMED}{'' if of_peaks else ' for bursts of the gradient'} at {where}"
        elif share[f"{model}_detached"] > 0.5:
            said = f"not the cause at {where}"
        else:
            said, evidence = OPEN, f"{evidence} The interventions disagree: needs more seeds."
        numbers = {f"{variant}.unrest": value for variant, value in share.items()}
        numbers |= {f"{name}.burst": float(value) for name, value in {**bursts, **others}.items()}
        runs = named(results, model, *interventions) + tuple((results.experiment.name, run) for run in others)
        return Verdict(said, evidence, numbers, runs, ("stability",))

    return judge


def fisher_greater(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """One-sided p of Fisher's exact test: chance of ``hits`` or more of ``of`` if the two groups have one rate."""
    table = [[hits, of - hits], [other_hits, other_of - other_hits]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def logged_every(results: Results) -> int:
    """Steps of a logging interval."""
    train = results.history[results.history["split"] == "train"]
    return int(train.groupby("run").apply(log_interval, include_groups=False).max())


def unrest_of(table: pd.DataFrame) -> tuple[int, int]:
    """How many of these runs have a late peak or a burst of the gradient, and of how many."""
    return int(((table["late_peaks"] > 0) | (table["burst"] > BURST)).sum()), len(table)


def uncured(study: Study, model: str, verdict: Verdict) -> Verdict:
    """``verdict``, which waits for interventions, with how restless the original is (where it is quiet there is nothing
    to cure) and those interventions that were run."""
    told: dict[str, list[str]] = {}
    runs = []
    for results in study:
        table = stability_of(results)
        for variant in (model, *INTERVENTIONS[model]):
            own = table[(table["variant"] == variant) & table["burst"].notna()]
            if len(own):
                hits, of = unrest_of(own)
                told.setdefault(variant, []).append(
                    f"{hits} of {of} run{'s' if of > 1 else ''} at {at(results)} (logged every {logged_every(results)})"
                )
                runs += [(results.experiment.name, run) for run in own["run"]]
    if model not in told:
        return verdict
    seen = "; ".join(f"`{variant}` in {', '.join(told[variant])}" for variant in dict.fromkeys((model, *told)))
    evidence = f"{verdict.evidence} With a late peak or a burst of the gradient above {BURST:g}: {seen}."
    return dataclasses.replace(verdict, evidence=evidence, runs=tuple(runs), exhibits=("stability",))


def bursts_elsewhere(results: Results, model: str) -> dict[str, float]:
    """The burst of each run of the model in the grid of learning rates, by run."""
    grid = results.grid[results.grid["variant"] == model]
    return {run: burst(results.of(run)) for run in grid["run"] if run not in set(results.runs["run"])}
