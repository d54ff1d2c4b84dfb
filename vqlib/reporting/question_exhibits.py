"""Exhibits of single questions; each is None where the experiment has no runs for it."""

import numpy as np
import pandas as pd

from vqlib.params import short
from vqlib.reporting import paper, question_figures
from vqlib.reporting.claims_latents import kept_frequency, that_differ
from vqlib.reporting.claims_training import stability_of
from vqlib.reporting.exhibit import Exhibit, cells, figure_of, listed, table_of
from vqlib.reporting.families import divides_by_a_norm, family, has_codebook
from vqlib.reporting.judging import ENOUGH, is_copy_of_vq
from vqlib.reporting.results import TIE, Results, chosen_rate, errors_by_rate
from vqlib.reporting.style import palette
from vqlib.reporting.tables import NOTHING, number

FEWEST_S = 3  # values of S at which models differ, for a figure against S; `vq` is one
CHANGED = {  # by an intervention, whose name is that of a model and this suffix
    "_released": "what the loss sees (the projection after a ReLU, as in the released code)",
    "_detached": "the gradient (none through the code inside the projection)",
    "_guard": "the denominator (a constant of the size of what a used code puts there is added)",
    "_no_loss": "the projection loss, which draws gains to 1 (it is left out)",
    "_unit": "the codes (divided by their norms, with all that follows from it)",
}


def controls(results: Results) -> Exhibit | None:
    """What codebooks kept in use and more bits give, beside what projection gives."""
    chosen = [model for model in results.models if family(model) in ("control", "ours")]
    if not chosen or "vq" not in results.models:
        return None
    models = ["vq", *(model for model in results.models if family(model) == "projected"), *chosen]
    rows = []
    for model in models:
        found = results.ratio(model, "vq")
        low, high = (np.nan, np.nan) if model == "vq" else (found.low, found.high)
        rows.append({"model": model, "ratio": found.value, "low": low, "high": high,
                     "bpp": results.mean(model, "rate.bpp_8bit"),
                     "measured": results.mean(model, "rate.bpp_bitstream_8bit"),
                     "perplexity": results.mean(model, "test.perplexity")})  # fmt: skip
    frame = pd.DataFrame(rows)
    caption = (
        "Test MSE over that of `vq` of the paper's projections, of codebooks kept in use and of gain-shape codes, with "
        "continuous numbers as floats. Beside it what it costs with 8 bits for each of these: bits per pixel of a real "
        "bitstream where one was measured, nominal bits, which are 0.5625 for one code of 512 a position, and the "
        "perplexity of the codes. The dotted lines are the error of `vq` and half of it, which the paper claims for "
        "its projection. Intervals (95 %, Welch) where both have three seeds."
    )
    figure = question_figures.controls(frame, palette(results.variants))
    return figure_of("controls", "Error over that of vq, and what it costs", figure, caption, results,
                     *results.runs_of(*models))  # fmt: skip


def frequency(results: Results) -> Exhibit | None:
    """The paper's Figure 4, None with too few values of S."""
    if len(that_differ(results)) < FEWEST_S:
        return None
    models = {model: int(results.option(model, "num_frequent")) for model in kept_frequency(results)}
    if results.runs_of("vq"):
        models["vq"] = results.experiment.network.num_embeddings
    rows = [{"S": value, "model": model, "reconstruction": results.mean(model, "test.mse"),
             "quantization": results.mean(model, "test.quantization"), "bpp": results.mean(model, "rate.bpp_8bit"),
             "fraction": results.mean(model, "rate.continuous_fraction")}
            for model, value in sorted(models.items(), key=lambda item: item[1])]  # fmt: skip
    ours = pd.DataFrame(rows)
    theirs = pd.DataFrame(
        [{"S": int(name.partition("_")[2] or paper.SETTING["num_embeddings"]), **entry["test"]}
         for name, entry in paper.LOSSES.items() if name == "vq" or name.startswith("frequency")]
    )  # fmt: skip
    fractions = {row["model"]: f"{number(100 * row['fraction'], 3)} %" for row in rows}
    caption = (
        "Error against S, the number of codes that stay discrete (the paper's Figure 4), with the share of positions "
        "that are continuous instead and the nominal rate that they cost at 8 bits a number."
        f"{listed(' Continuous positions:', fractions)} Where the share is nil the model is `vq`, whatever its S."
    )
    colours = palette(results.variants)
    figure = question_figures.frequency(ours, theirs, colours[next(iter(models))])
    return figure_of("frequency", "The frequency model against S", figure, caption, results,
                     *results.runs_of(*models))  # fmt: skip


def stability(results: Results) -> Exhibit | None:
    """C2 run by run, None where nothing divides by a norm."""
    table = _stability(results)
    if table is None:
        return None
    shown = table[table["rise"].notna()]
    peaks = {model: f"{int((part['late_peaks'] > 0).sum())} of {len(part)}"
             for model, part in shown.groupby("variant", sort=False)}  # fmt: skip
    changed = [f"`{suffix}` {what}" for suffix, what in CHANGED.items() if any(m.endswith(suffix) for m in peaks)]
    interventions = f" What interventions change, by the end of their names: {', '.join(changed)}." if changed else ""
    caption = (
        "A dot for every run of `vq`, of models that divide by a norm and of those with three seeds. Left: the worst "
        "step in the second half of training, divided by a typical worst step (the median over logging intervals); "
        "above 3 it counts as a late peak. Middle: the highest gradient norm of a logging interval, divided by the "
        "mean of that interval, a ratio that cannot exceed the interval's number of steps. Right: the least "
        "norm of a code in use. Middle and right: after the first tenth of training."
        f"{interventions}{listed(' Runs with a late peak:', peaks)}"
    )
    figure = question_figures.stability(shown, palette(results.variants))
    return figure_of("stability", "Stability in training", figure, caption, results, *shown["run"])


def stability_table(results: Results) -> Exhibit | None:
    table = stability_of(results)
    if not table["variant"].map(divides_by_a_norm).any():
        return None
    copies = table["run"].map(lambda run: is_copy_of_vq(results, run))
    table = table[table["variant"].map(has_codebook) & ~copies]
    shown, values = [], []
    for model, part in table.groupby("variant", sort=False):
        texts, numbers = cells(results, model, {})
        hits = int((part["late_peaks"] > 0).sum())
        middle = part[["rise", "burst", "least_used_norm"]].median()
        texts |= {"runs with a late peak": f"{hits} of {len(part)}",
                  "highest step": number(float(part["rise"].max()), 3),
                  "median burst": number(float(middle["burst"]), 3),
                  "greatest burst": number(float(part["burst"].max()), 3),
                  "least norm in use": number(float(part["least_used_norm"].min()), 3),
                  "end / best": number(float(part["end_over_best"].max()), 3)}  # fmt: skip
        shown.append(texts)
        values.append(numbers | {"runs_with_late_peak": hits, "highest_step": part["rise"].max(),
                                 "median_burst": middle["burst"], "greatest_burst": part["burst"].max(),
                                 "least_norm_in_use": part["least_used_norm"].min(),
                                 "end_over_best": part["end_over_best"].max()})  # fmt: skip
    caption = (
        "Stability of every model with a learnt codebook, copies of `vq` left out, over its runs. Highest step: the "
        "worst of the second half, divided by a typical worst step (the median over logging intervals); a late peak is "
        "one above 3. Burst: highest over mean gradient norm of a logging interval. End / best: the last validation "
        "MSE over the least one, the greatest of the runs; tests and all other tables are of the weights with the "
        "least. tables/runs.csv has every run."
    )
    return table_of("stability", "Stability as numbers", shown, values, caption, results, *table["run"])


def _stability(results: Results) -> pd.DataFrame | None:
    """The runs of models that divide by a norm, of vq, and of what else has several seeds."""
    table = stability_of(results)
    if not table["variant"].map(divides_by_a_norm).any():
        return None
    seeds = table.groupby("variant")["run"].transform("count")
    kept = table["variant"].map(divides_by_a_norm) | (table["variant"] == "vq") | (seeds >= ENOUGH)
    return table[kept & (table["variant"] != "identity")]


def usage(results: Results) -> Exhibit | None:
    """Sorted shares of the codes."""
    rows = [
        {"model": evaluation["variant"], "run": run, "rank": rank, "share": share}
        for run, evaluation in results.evaluations.items() if run in set(results.runs["run"])
        for symbol in (evaluation.get("codes") or [])[:1]
        for rank, share in zip(symbol["ranks"], symbol["shares"], strict=True)
    ]  # fmt: skip
    if not rows:
        return None
    shares = pd.DataFrame(rows)
    models = list(dict.fromkeys(shares["model"]))
    perplexities = {model: number(results.mean(model, "test.perplexity"), 3) for model in models}
    caption = (
        "Use of the codes on the test split: the share of positions of every code, the most used first; where a "
        "position has several symbols, of the first one. A curve that ends early belongs to a codebook that lies idle; "
        "codebooks in even use lie on each other."
        f"{listed(' Perplexity:', perplexities)}"
    )
    figure = question_figures.codebook_usage(shares, palette(results.variants))
    return figure_of("usage", "Use of the codebook", figure, caption, results, *results.runs_of(*models))


def gains(results: Results) -> Exhibit | None:
    """Distribution of gains, continuous and quantised, of the first run of every model that has some."""
    continuous, levels = [], []
    for model in results.models:
        run = results.runs_of(model)[0]
        evaluation = results.evaluations[run]
        if histogram := evaluation.get("gains"):
            edges = np.asarray(histogram["edges"])
            density = np.asarray(histogram["shares"]) / np.diff(edges)
            continuous += [{"model": model, "run": run, "middle": middle, "density": value}
                           for middle, value in zip((edges[1:] + edges[:-1]) / 2, density, strict=True)]  # fmt: skip
        if family(model) == "ours":
            levels += [{"model": model, "run": run, **level} for symbol in evaluation.get("codes") or []
                       for level in levels_of(symbol)]  # fmt: skip
    if not continuous and not levels:
        return None
    frames = (pd.DataFrame(continuous, columns=["model", "run", "middle", "density"]),
              pd.DataFrame(levels, columns=["model", "run", "value", "share"]))  # fmt: skip
    runs = dict.fromkeys([*frames[0]["run"], *frames[1]["run"]])
    caption = (
        "Distribution of the gains on the test split, of one run of every model; every row has a scale of its own for "
        "its height."
    )
    if continuous:
        spreads = {run: number(float(results.runs.set_index("run")["gains.std"][run]), 2)
                   for run in dict.fromkeys(frames[0]["run"])}  # fmt: skip
        caption += (
            f"{listed(' Standard deviation:', spreads)}"
            " A gain of 1 (dotted) is the code itself, so the width of the distribution of continuous gains is what "
            "projection adds to `vq`. Their histograms have 64 bins between the quantiles 1e-4 and 1 - 1e-4 of those "
            "of training images, so bins are wide where a few lie far out; what lies outside counts in the outermost."
        )
    if levels:
        caption += (
            " Quantised gains stand at the values of their levels. Levels have signs, since a shape is chosen by the "
            "size of the product: one of the b bits of a gain is the sign. Which sign is positive is a convention, "
            "that of the largest level."
        )
    figure = question_figures.gain_distributions(*frames, palette(results.variants))
    return figure_of("gains", "Distribution of the gains", figure, caption, results, *runs)


def levels_of(symbol: dict) -> list[dict]:
    """Value and use of each level of a symbol that multiplies a code, by value; nothing where values are lacking."""
    if not symbol.get("values") or not symbol.get("levels"):
        return []
    pairs = sorted(zip(symbol["values"], symbol["levels"], strict=True))
    return [{"value": value, "share": share * len(pairs)} for value, share in pairs]


def learning_rates(results: Results) -> Exhibit | None:
    """The grid of learning rates, on validation; None where no variant was trained at several."""
    tried = results.grid[results.grid["variant"].isin(results.tuned().models)]
    if tried.empty:
        return None
    rates = sorted(tried["learning_rate"].unique())
    shown, values = [], []
    for model in (model for model in results.models if model in set(tried["variant"])):
        runs = tried[tried["variant"] == model]
        means, best = errors_by_rate(runs), chosen_rate(runs)
        texts = {"model": f"`{model}`"}
        for rate in rates:
            text = number(float(means[rate])) if rate in means else NOTHING
            texts[short(rate)] = f"**{text}**" if rate == best else text
        texts["chosen"] = short(best) + (" (the edge of its grid)" if best in (means.index[0], means.index[-1]) else "")
        shown.append(texts)
        values.append(
            {"model": model, "chosen": best, **{f"validation_mse_{rate:g}": means.get(rate) for rate in rates}}
        )
    caption = (
        "Least validation MSE at every learning rate that was tried, a mean over the seeds that ran at all of them. "
        f"Rates are chosen on the validation split, of those within {TIE:.0%} of the least the lowest; a choice at the "
        "edge of a grid says that a better rate may lie beyond."
    )
    used = {model: " or ".join(short(rate) for rate in dict.fromkeys(runs["learning_rate"]))
            for model, runs in results.runs.groupby("variant", sort=False)}  # fmt: skip
    usual = max(used.values(), key=list(used.values()).count)
    others = "".join(f", of `{model}` at {rate}" for model, rate in used.items() if rate != usual)
    caption += f" Every other figure and table has the runs at {usual}{others}."
    return table_of("learning_rates", "Learning rates", shown, values, caption, results, *tried["run"])
