"""C1 and C3, what projection does to the error and how close reconstructions come. Rules: claims.py and LOG.md."""

from math import log10

import numpy as np

from vqlib.reporting.families import family, has_codebook
from vqlib.reporting.judging import (
    ENOUGH,
    NOT_REPRODUCED,
    OPEN,
    PAPER_STEPS,
    PAPER_WIDTH,
    REPRODUCED,
    Study,
    Verdict,
    at,
    enough,
    interval,
    lacking,
    named,
    scoped,
    tendency,
)
from vqlib.reporting.results import Results
from vqlib.reporting.statistics import Ratio, ratio
from vqlib.reporting.tables import number, with_interval

HALF, TENDENCY = 0.5, (0.4, 0.6)  # a single seed has to leave room for its scatter
CLOSE_ENOUGH = 1.01  # of the error with 32-bit gains
SAME_RATE = 1e-6  # bits per pixel
PSNR, SSIM = 28.5, 0.95  # the paper's own error of 0.0056 is 28.5 dB


def halved(study: Study) -> Verdict:
    """C1, along the axis of the paper's text."""
    results = enough(study, "projected", "vq")
    if results is None:
        return lacking(study, "projected", "vq")
    found = results.ratio("projected", "vq")
    full, base = (results.mean(model, "rate.bpp_32bit") for model in ("projected", "vq"))
    bits, bpp, errors = fewest_bits(results, "projected")
    control = best_control(results, bpp)
    against = ratio(errors, results.seeds(control, "test.mse").to_numpy()) if control else None
    said, needs = decided(found, against, control, bpp / base)
    seeds = " and ".join(dict.fromkeys(str(len(results.runs_of(model))) for model in ("projected", "vq")))
    evidence = (
        f"Test MSE of `projected` over that of `vq`: {interval(found)} over {seeds} seeds ({at(results)}), "
        f"at {number(full)} (32-bit gains) against {number(base)} bits per pixel. "
    )
    if against is None:
        evidence += f"No control of at most {number(bpp)} bits per pixel was run."
    else:
        evidence += (
            f"With {bits}-bit gains, {number(bpp)} bpp: {interval(against)} times the MSE of `{control}`, the best "
            f"control at no more nominal bits ({number(results.mean(control, 'rate.bpp_8bit'))} bpp)."
        )
    if needs:
        evidence += f" Needs {needs}."
    numbers = {"ratio": found.value, "low": found.low, "high": found.high, "bpp": full, "bpp_vq": base,
               "seeds": len(results.runs_of("projected")), "bits": bits, "bpp_at_bits": bpp,
               "rate_factor": bpp / base} | ({"ratio_at_equal_rate": against.value} if against else {})  # fmt: skip
    runs = named(results, "vq", "projected", *([control] if control else []))
    shown = ("rate_distortion", "models", *(["controls"] if control else []))
    return Verdict(scoped(said, results), evidence, numbers, runs, shown)


def decided(found: Ratio, against: Ratio | None, control: str | None, rate_factor: float) -> tuple[str, str]:
    """C1's rule: the verdict, and where it is open what would settle it.

    Args:
        found: the error of the projected model over that of ``vq``.
        against: over that of ``control``, the best one of no more bits, None where there is none.
        rate_factor: bits per pixel of the projected model over those of ``vq``.
    """
    if found.low > HALF:
        return NOT_REPRODUCED, ""
    if found.high > HALF:
        return OPEN, f"more seeds: {HALF} lies in the interval"
    if against is None or against.low != against.low:
        return OPEN, f"{ENOUGH} seeds of {f'`{control}`' if control else 'such a control'}"
    if against.high <= HALF:
        return REPRODUCED, ""
    return f"true only at {number(rate_factor, digits=3)} times the rate", ""


def halved_as_released(study: Study) -> Verdict:
    """C1, along the axis of the released code, at a width that can judge it."""
    large = {"seeds": 1, "at_least": PAPER_WIDTH, "fewest_steps": PAPER_STEPS}
    results = enough(study, "projected_rows", "vq", **large)
    seen = [f"{interval(one.ratio('projected_rows', 'vq'))} at {at(one)}" for one in study
              if one.runs_of("projected_rows") and one.runs_of("vq")]  # fmt: skip
    if results is None:
        missing = lacking(study, "projected_rows", "vq", **large)
        told = f" Seen, and no judgement: MSE over that of `vq` {', '.join(seen)}." if seen else ""
        return Verdict(OPEN, missing.evidence + told, {}, (), ())
    found = results.ratio("projected_rows", "vq")
    several = found.low == found.low
    yes, no = (found.high <= HALF, found.low > HALF) if several else (found.value <= TENDENCY[0],
                                                                      found.value >= TENDENCY[1])  # fmt: skip
    bits, bpp, _ = fewest_bits(results, "projected_rows")
    full, base = results.mean("projected_rows", "rate.bpp_32bit"), results.mean("vq", "rate.bpp_codes")
    said = f"true only at {number(bpp / base, digits=3)} times the rate" if yes else NOT_REPRODUCED if no else OPEN
    evidence = (
        f"Test MSE of `projected_rows` over that of `vq`: {interval(found)} ({at(results)}), at {number(full)} bits "
        f"per pixel with 32-bit gains, {number(bpp)} with {bits}-bit gains, the fewest that cost 1 % of the error, "
        f"against {number(base)}; a raw image has 24."
    )
    numbers = {"ratio": found.value, "bpp": full, "bits": bits, "bpp_at_bits": bpp, "rate_factor": bpp / base}
    return Verdict(tendency(scoped(said, results), results, "projected_rows", "vq"), evidence, numbers,
                   named(results, "projected_rows", "vq"), ("rate_distortion", "models"))  # fmt: skip


def for_free(study: Study) -> Verdict:
    """How much of "half the error" a codebook kept in use gives at the nominal rate of vq; and none."""
    for results in study:
        base = results.mean("vq", "rate.bpp_codes")
        control = best_control(results, base, codebook=True)
        if control is None or not results.runs_of("projected"):
            continue
        share = gained(results, control)
        against = results.ratio("projected", control)
        bits = {model: results.mean(model, "rate.bpp_bitstream") for model in ("vq", control)}
        evidence = (
            f"`{control}` has {interval(results.ratio(control, 'vq'))} times the test MSE of `vq` at the same "
            f"{number(base)} nominal bits per pixel ({at(results)}; perplexity "
            f"{number(results.mean(control, 'test.perplexity'), digits=3)} against "
            f"{number(results.mean('vq', 'test.perplexity'), digits=3)}){in_bits(bits[control], bits['vq'])}. "
            f"`projected`, at {number(results.mean('projected', 'rate.bpp_32bit'))}, has {interval(against)} times the "
            f"error of it.{without_codebook(results, base)}"
        )
        numbers = {"share": share, "ratio": results.ratio(control, "vq").value, "projected_over_control": against.value,
                   "bitstream": bits[control] / bits["vq"]}  # fmt: skip
        said = f"{number(50 * share, digits=2)} % less error"
        if bits["vq"] == bits["vq"] and bits[control] == bits[control]:
            said += f" for {number(bits[control] / bits['vq'], 3)} times the measured bits"
        said = tendency(scoped(said, results), results, "vq", control)
        return Verdict(said, evidence, numbers, named(results, "vq", control, "projected"), ("controls", "rates"))
    return Verdict(OPEN, "Needs a control with a codebook at the rate of `vq`, with `vq` and `projected` beside it.")


def gained(results: Results, control: str) -> float:
    """The share of half the error of vq that a control takes away."""
    base = results.mean("vq", "test.mse")
    return (base - results.mean(control, "test.mse")) / (base / 2)


def in_bits(bits: float, base: float) -> str:
    """What a control costs in a real bitstream, nothing where none was measured."""
    if bits != bits or base != base:
        return ""
    return f", but {number(bits, 3)} against {number(base, 3)} in a real bitstream, {number(bits / base, 3)} times"


def without_codebook(results: Results, bpp: float) -> str:
    """The best control of that rate that has no codebook, as a sentence with its own share and bits."""
    control = best_control(results, bpp, codebook=False)
    if control is None:
        return ""
    bits, base = (results.mean(model, "rate.bpp_bitstream") for model in (control, "vq"))
    return (
        f" Apart from it, `{control}`, which has no codebook: {interval(results.ratio(control, 'vq'))} times the error"
        f" of `vq`, {number(50 * gained(results, control), digits=2)} % of it taken away{in_bits(bits, base)}."
    )


def fewest_bits(results: Results, model: str) -> tuple[int, float, np.ndarray]:
    """The coarsest gains that cost at most 1 % of the error: bits, nominal bits per pixel, test MSE of every seed."""
    curve = results.precisions(model)
    full = results.mean(model, "test.mse")
    for bits, points in curve.groupby("bits"):
        if points["mse"].mean() <= CLOSE_ENOUGH * full:
            return int(bits), float(points["bpp_nominal"].mean()), points["mse"].to_numpy()
    if results.mean(model, "test.mse_8bit") <= CLOSE_ENOUGH * full:
        return 8, results.mean(model, "rate.bpp_8bit"), results.seeds(model, "test.mse_8bit").to_numpy()
    return 32, results.mean(model, "rate.bpp_32bit"), results.seeds(model, "test.mse").to_numpy()


def best_control(results: Results, bpp: float, codebook: bool | None = None) -> str | None:
    """The control of at most so many nominal bits per pixel whose validation error is least.

    Continuous numbers count at 8 bits each. ``codebook`` takes only those with one, or only those without.
    """
    controls = [model for model in results.models if family(model) == "control"]
    if codebook is not None:
        controls = [model for model in controls if has_codebook(model) == codebook]
    affordable = [model for model in controls if results.mean(model, "rate.bpp_8bit") <= bpp + SAME_RATE]
    return min(affordable, key=lambda model: results.mean(model, "validation_mse"), default=None)


def almost_identical(model: str, fewest: int, at_least: int = 1, fewest_steps: int = 1):
    """The judge of C3 for a model, with that many seeds, at a width and a length."""

    def judge(study: Study) -> Verdict:
        wanted_runs = {"seeds": fewest, "at_least": at_least, "fewest_steps": fewest_steps}
        results = enough(study, model, **wanted_runs)
        if results is None:
            return lacking(study, model, **wanted_runs)
        measured = {key: (results.mean(model, f"test.{key}"), results.interval(model, f"test.{key}"))
                    for key in ("psnr", "ssim")}  # fmt: skip
        wanted = {"psnr": PSNR, "ssim": SSIM}
        ends = {key: [mean + sign * (0 if half != half else half) for sign in (-1, 1)]
                for key, (mean, half) in measured.items()}  # fmt: skip
        said = OPEN
        if all(ends[key][0] >= wanted[key] for key in wanted):
            said = REPRODUCED
        elif any(ends[key][1] < wanted[key] for key in wanted):
            said = NOT_REPRODUCED
        psnr, ssim = (with_interval(mean, half) for mean, half in measured.values())
        seeds = len(results.runs_of(model))
        evidence = (
            f"{psnr} dB (mean of the images' PSNR) and SSIM {ssim} over {seeds} seed{'s' if seeds > 1 else ''} "
            f"({at(results)}), at "
            f"{number(results.mean(model, 'rate.bpp_32bit'))} bits per pixel; asked for: {PSNR} dB, the PSNR of the "
            f"paper's mean error, and {SSIM}. Our mean error is {number(results.mean(model, 'test.mse'))}, "
            f"{number(10 * log10(4 / results.mean(model, 'test.mse')))} dB by that count."
        )
        if said == OPEN:
            evidence += " Needs more seeds: a limit lies in an interval."
        numbers = {key: mean for key, (mean, _) in measured.items()}
        return Verdict(tendency(scoped(said, results), results, model), evidence, numbers, named(results, model),
                       ("reconstructions", "models"))  # fmt: skip

    return judge
