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
    differing = {one.experiment.name: that_differ(one) for one in having}
    results = next((one for one in having if len(differing[one.experiment.name]) >= VALUES_OF_S), having[0])
    models, different = kept_frequency(results), differing[results.experiment.name]
    copies = [model for model in models if model not in different]
    ratios = {model: 1.0 if model in copies else results.ratio(model, "vq").value for model in names}
    fractions = {model: results.mean(model, "rate.continuous_fraction") for model in ["vq", *models]}
    errors = {model: results.mean(model, "test.mse") for model in ["vq", *models]}
    nothing = all(value >= NO_GAIN for value in ratios.values())
    idle = [f"{model.removeprefix('frequency_')}" for model in names if model in copies]
    least, most = min(ratios.values()), max(ratios.values())
    evidence = f"At {at(results)}"
    if len(idle) < len(names):
        evidence += f", test MSE over that of `vq` at the paper's S is {number(least, 3)} to {number(most, 3)}"
    if idle:
        evidence += f", no position is continuous at S = {', '.join(idle)}: there it is `vq` of the same seed"
    evidence += "."
    numbers = {"least": least, "greatest": most}
    runs, shown = named(results, "vq", *models), ("frequency",)
    if not nothing:
        return Verdict(tendency(scoped(NOT_REPRODUCED, results), results, "vq", *names), evidence, numbers, runs, shown)
    if len(different) < VALUES_OF_S:
        evidence += (
            f" Needs {VALUES_OF_S} models that differ for a trend in S, `vq` being one: there are {len(different)}, "
            f"copies of `vq` not counted."
        )
        return Verdict(OPEN, evidence, numbers, runs, shown)
    order, chance = rank_correlation([fractions[model] for model in different], [errors[model] for model in different])
    numbers |= {"rank_correlation": order, "p": chance}
    evidence += (
        f" Over the {len(different)} values of S at which models differ the rank correlation of error with the "
        f"fraction of continuous positions is {number(order, 3)} (two-sided permutation p {number(chance, 2)})."
    )
    if not order <= TREND + ROUNDING:
        return Verdict(tendency(scoped(REPRODUCED, results), results, "vq", *models), evidence, numbers, runs, shown)
    best = min(models, key=lambda model: results.mean(model, "validation_mse"))
    rate, base = results.mean(best, "rate.bpp_8bit"), results.mean("vq", "rate.bpp_codes")
    better = [model for model in results.models if model not in models
              and results.mean(model, "test.mse") <= errors[best]
              and results.mean(model, "rate.bpp_8bit") <= rate]  # fmt: skip
    numbers |= {"rate_factor": rate / base, "fraction": fractions[best]}
    evidence += (
        f" The least, `{best}` with {number(100 * fractions[best], 3)} % continuous, has "
        f"{number(errors[best] / errors['vq'], 3)} of the error of `vq` at {number(rate / base, 3)} times its rate"
        + (f"; `{better[0]}` has less at no more." if better else "; no other model has less at no more.")
    )
    if len(idle) == len(names):
        said = scoped("not testable for the paper's S", results)
    else:
        said = tendency(scoped("true only of the paper's S", results), results, "vq", *models)
    return Verdict(said, evidence, numbers, runs, shown)


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
