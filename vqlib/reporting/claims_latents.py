"""C4 and C5, the frequency model and priors over continuous latents. The rules stand in claims.py and LOG.md."""

from vqlib.reporting.families import family
from vqlib.reporting.judging import NOT_REPRODUCED, OPEN, REPRODUCED, Study, Verdict, at, enough, lacking, named
from vqlib.reporting.results import Results
from vqlib.reporting.statistics import spearman
from vqlib.reporting.tables import number

PAPERS_S, NO_GAIN, NEVER, TREND, VALUES_OF_S = (502, 412, 312), 0.95, 0.001, -0.9, 5


def frequency(study: Study) -> Verdict:
    """C4: (a) nothing convincing at the paper's S, (b) no clear trend in S."""
    names = [f"frequency_{value}" for value in PAPERS_S]
    results = enough(study, "vq", *names, seeds=1)
    if results is None:
        return lacking(study, "vq", *names, seeds=1)
    models = [model for model in results.models if results.option(model, "num_frequent") is not None
              and family(model) == "frequency" and "released" not in model]  # fmt: skip
    ratios = {model: results.ratio(model, "vq").value for model in names}
    fractions = {model: results.mean(model, "rate.continuous_fraction") for model in ["vq", *models]}
    errors = {model: results.mean(model, "test.mse") for model in ["vq", *models]}
    nothing = all(value >= NO_GAIN for value in ratios.values())
    idle = [f"{model.removeprefix('frequency_')}" for model in names if fractions[model] < NEVER]
    least, most = min(ratios.values()), max(ratios.values())
    evidence = (
        f"Test MSE over that of `vq` at the paper's S: {number(least, 3)} to {number(most, 3)} ({at(results)})."
        + (
            f" At S = {', '.join(idle)} under {100 * NEVER:.1g} % of positions are continuous: it is `vq`."
            if idle
            else ""
        )
    )
    numbers = {"least": least, "greatest": most}
    runs, shown = named(results, "vq", *models), ("frequency",)
    if not nothing:
        return Verdict(NOT_REPRODUCED, evidence, numbers, runs, shown)
    if len(models) + 1 < VALUES_OF_S:
        return Verdict(
            OPEN, f"{evidence} A trend needs {VALUES_OF_S} values of S, `vq` being one.", numbers, runs, shown
        )
    order = spearman(list(fractions.values()), list(errors.values()))
    numbers |= {"rank_correlation": order}
    evidence += (
        f" Over all S the rank correlation of error with the fraction of continuous positions is {number(order, 3)}."
    )
    if not order <= TREND:
        return Verdict(REPRODUCED, evidence, numbers, runs, shown)
    best = min(models, key=lambda model: results.mean(model, "validation_mse"))
    rate, base = results.mean(best, "rate.bpp_8bit"), results.mean("vq", "rate.bpp_codes")
    better = [model for model in results.models if model not in models
              and results.mean(model, "test.mse") <= errors[best] and cheapest(results, model) <= rate]  # fmt: skip
    numbers |= {"rate_factor": rate / base, "fraction": fractions[best]}
    evidence += (
        f" The least, `{best}` with {number(100 * fractions[best], 3)} % continuous, has "
        f"{number(errors[best] / errors['vq'], 3)} of the error of `vq` at {number(rate / base, 3)} times its rate"
        + (f"; `{better[0]}` has less at no more." if better else "; no other model has less at no more.")
    )
    return Verdict("true only of the paper's S", evidence, numbers, runs, shown)


def cheapest(results: Results, model: str) -> float:
    """Nominal bits per pixel with continuous numbers at 8 bits, where there are any."""
    eight = results.mean(model, "rate.bpp_8bit")
    return eight if eight == eight else results.mean(model, "rate.bpp_codes")


def priors(study: Study) -> Verdict:
    """C5: whether a prior over continuous latents can be fitted and sampled."""
    for results in study:
        fitted = {run: prior for run, prior in results.priors.items() if prior.get("reals")}
        if not fitted:
            continue
        told, below, nearer = [], 0, 0
        for run, prior in fitted.items():
            rate, order0 = prior["rate"]["bpp_prior"], prior["rate"]["bpp_order0"]
            nominal = results.evaluations[run]["rate"]["bpp_8bit"]
            distance = prior["samples"]["code_pairs"]
            told.append(
                f"`{run}` {number(rate)} (histograms: {number(order0)}, nominal: {number(nominal)}), its samples at "
                f"{number(distance['prior'])} of test images (draws from the histograms: {number(distance['naive'])})"
            )
            below += rate < order0
            nearer += distance["prior"] < distance["naive"]
        said = REPRODUCED if not below else NOT_REPRODUCED if below == nearer == len(fitted) else OPEN
        evidence = (
            "Bits per pixel of the test latents under a prior of codes and 8-bit continuous values, and distances in "
            f"pairs of neighbouring codes: {'; '.join(told)} ({at(results)})."
        )
        if said == OPEN:
            evidence += " Needs a rate below the histograms' and nearer samples, of all of them or such a rate of none."
        numbers = {"below": below, "nearer": nearer, "of": len(fitted)}
        runs = tuple((results.experiment.name, run) for run in fitted)
        return Verdict(said, evidence, numbers, runs, ("priors",))
    return Verdict(OPEN, "Needs a prior over the codes and continuous latents of a model, and samples from it.")
