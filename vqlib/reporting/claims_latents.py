"""C4 and C5, the frequency model and priors over continuous latents. The rules stand in claims.py and LOG.md."""

from math import nan

from scipy.stats import permutation_test, spearmanr

from vqlib.reporting.families import family
from vqlib.reporting.judging import (
    NOT_REPRODUCED,
    OPEN,
    REPRODUCED,
    Study,
    Verdict,
    at,
    is_copy_of_vq,
    lacking,
    named,
    scoped,
    tendency,
)
from vqlib.reporting.results import Results
from vqlib.reporting.tables import number

PAPERS_S, NO_GAIN, TREND, VALUES_OF_S = (502, 412, 312), 0.95, -0.9, 5
ROUNDING = 1e-9  # ranks of five values that differ by one exchange correlate by 0.9, in floats by a bit less


def frequency(study: Study) -> Verdict:
    """C4: (a) nothing convincing at the paper's S, (b) no clear trend in S."""
    names = [f"frequency_{value}" for value in PAPERS_S]
    having = [one for one in study if all(one.runs_of(model) for model in ("vq", *names))]
    if not having:
        return lacking(study, "vq", *names, seeds=1)
    differing = [(one, that_differ(one)) for one in having]
    results, different = next((pair for pair in differing if len(pair[1]) >= VALUES_OF_S), differing[0])
    models = kept_frequency(results)
    idle = [model for model in names if model not in different]
    ratios = [1.0 if model in idle else results.ratio(model, "vq").value for model in names]
    numbers = {"least": min(ratios), "greatest": max(ratios)}
    evidence = [at_papers_s(results, ratios, idle)]

    def verdict(said: str, *of: str) -> Verdict:
        said = tendency(scoped(said, results), results, *of) if of else scoped(said, results)
        return Verdict(said, " ".join(evidence), numbers, named(results, "vq", *models), ("frequency",))

    if min(ratios) < NO_GAIN:
        return verdict(NOT_REPRODUCED, "vq", *names)
    if len(different) < VALUES_OF_S:
        evidence.append(
            f"Needs {VALUES_OF_S} models that differ for a trend in S, `vq` being one: there are {len(different)}, "
            "copies of `vq` not counted."
        )
        return verdict(OPEN)
    order, chance = rank_correlation(*([results.mean(model, column) for model in different]
                                       for column in ("rate.continuous_fraction", "test.mse")))  # fmt: skip
    numbers |= {"rank_correlation": order, "p": chance}
    evidence.append(
        f"Over the {len(different)} values of S at which models differ the rank correlation of error with the "
        f"fraction of continuous positions is {number(order, 3)} (two-sided permutation p {number(chance, 2)})."
    )
    if not order <= TREND + ROUNDING:
        return verdict(REPRODUCED, "vq", *models)
    told, of_the_best = least_error(results, models)
    numbers |= of_the_best
    evidence.append(told)
    if len(idle) == len(names):
        return verdict("not testable for the paper's S")
    return verdict("true only of the paper's S", "vq", *models)


def at_papers_s(results: Results, ratios: list[float], idle: list[str]) -> str:
    """A sentence on the errors over that of ``vq`` at the paper's S, and on those S at which the model is ``vq``."""
    told = f"At {at(results)}"
    if len(idle) < len(ratios):
        told += f", test MSE over that of `vq` at the paper's S is {number(min(ratios), 3)} to {number(max(ratios), 3)}"
    if idle:
        values = ", ".join(model.removeprefix("frequency_") for model in idle)
        told += f", no position is continuous at S = {values}: there it is `vq` of the same seed"
    return f"{told}."


def least_error(results: Results, models: list[str]) -> tuple[str, dict[str, float]]:
    """A sentence, and numbers, on the frequency model with the least validation error, its rate, and whether another
    model has less error at no more bits."""
    best = min(models, key=lambda model: results.mean(model, "validation_mse"))
    fraction, error = (results.mean(best, column) for column in ("rate.continuous_fraction", "test.mse"))
    factor = results.mean(best, "rate.bpp_8bit") / results.mean("vq", "rate.bpp_codes")
    better = [model for model in results.models if model not in models
              and results.mean(model, "test.mse") <= error
              and results.mean(model, "rate.bpp_8bit") <= results.mean(best, "rate.bpp_8bit")]  # fmt: skip
    told = (
        f"The least, `{best}` with {number(100 * fraction, 3)} % continuous, has "
        f"{number(results.ratio(best, 'vq').value, 3)} of the error of `vq` at {number(factor, 3)} times its rate"
        + (f"; `{better[0]}` has less at no more." if better else "; no other model has less at no more.")
    )
    return told, {"rate_factor": factor, "fraction": fraction}


def kept_frequency(results: Results) -> list[str]:
    """The frequency models of one S each, as the paper describes them."""
    return [model for model in results.models if results.option(model, "num_frequent") is not None
            and family(model) == "frequency" and "released" not in model]  # fmt: skip


def that_differ(results: Results) -> list[str]:
    """``vq`` and those of them that are not copies of it."""
    return ["vq", *(model for model in kept_frequency(results)
                    if not all(is_copy_of_vq(results, run) for run in results.runs_of(model)))]  # fmt: skip


def rank_correlation(x: list[float], y: list[float]) -> tuple[float, float]:
    """Spearman's and its two-sided p over the orders of one side, all of them up to seven values and else 9,999 drawn
    ones; NaN where one side is constant."""
    if len(set(x)) == 1 or len(set(y)) == 1:
        return nan, nan
    found = permutation_test([x], lambda order: spearmanr(order, y).statistic, permutation_type="pairings", rng=0)
    return float(found.statistic), float(found.pvalue)


def priors(study: Study) -> Verdict:
    """C5: whether a prior over continuous latents can be fitted and sampled. Runs of the grid of rates do not vote."""
    for results in study:
        fitted = {run: prior for run in results.runs_of() if (prior := results.priors.get(run, {})).get("reals")}
        if not fitted:
            continue
        tests = {run: tests_of(prior) for run, prior in fitted.items()}
        models = list(dict.fromkeys(results.evaluations[run]["variant"] for run in fitted))
        failed = {run for run, test in tests.items() if not all(test.values())}
        passed = [model for model in models if not failed & set(results.runs_of(model))]
        below = sum(test["reals"] for test in tests.values())
        named_models = ", ".join(f"`{model}`" for model in models)
        word = NOT_REPRODUCED if len(passed) == len(models) else OPEN if below else REPRODUCED
        said = tendency(scoped(word, results, named_models), results, *models, among=fitted)
        evidence = (
            "Bits per pixel of the test latents under a prior, with 8-bit continuous values (histograms in brackets), "
            "and the samples' distance from test images (that of draws from the histograms): "
            f"{'; '.join(told(run, prior) for run, prior in fitted.items())} ({at(results)})."
        )
        if said == OPEN:
            lost = "; ".join(f"`{run}` fails in {', '.join(name for name, met in tests[run].items() if not met)}"
                             for run in tests if run in failed)  # fmt: skip
            evidence += f" {lost}. Needs all four of every run, or of none a lower rate of the continuous values."
        numbers = {"below": below, "passed": len(fitted) - len(failed), "of": len(fitted)}
        runs = tuple((results.experiment.name, run) for run in fitted)
        return Verdict(said, evidence, numbers, runs, ("priors", "prior_distances"))
    return Verdict(OPEN, "Needs a prior over the codes and continuous latents of a model, and samples from it.")


def tests_of(prior: dict) -> dict[str, bool]:
    """What C5 asks of one prior: a lower rate in all and of the continuous values, and samples that are nearer."""
    rate, samples = prior["rate"], prior["samples"]
    return {
        "rate": rate["bpp_prior"] < rate["bpp_order0"],
        "reals": rate["bpp_reals_prior"] < rate["bpp_reals_order0"],
        "code pairs": samples["code_pairs"]["prior"] < samples["code_pairs"]["naive"],
        "pixels": samples["sliced_wasserstein"]["prior"] < samples["sliced_wasserstein"]["naive"],
    }


def told(run: str, prior: dict) -> str:
    """Both parts of the rate, and both distances of the samples."""
    rate, samples = prior["rate"], prior["samples"]
    parts = {"all": "bpp", "codes": "bpp_codes", "continuous values": "bpp_reals"}
    rates = ", ".join(f"{word} {number(rate[f'{key}_prior'], 3)} ({number(rate[f'{key}_order0'], 3)})"
                      for word, key in parts.items())  # fmt: skip
    measures = {"pixels": "sliced_wasserstein", "code pairs": "code_pairs"}
    apart = ", ".join(f"{word} {number(samples[key]['prior'], 3)} ({number(samples[key]['naive'], 3)})"
                      for word, key in measures.items())  # fmt: skip
    return f"`{run}` {rates}; {apart}"
