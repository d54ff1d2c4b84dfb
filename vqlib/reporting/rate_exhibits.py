"""Distortion against rate as a figure, and every way of counting bits as a table."""

from collections.abc import Iterable, Sequence
from math import nan

import pandas as pd

from vqlib.bjontegaard import bd_rate
from vqlib.reporting import rate_figures
from vqlib.reporting.exhibit import Exhibit, cells, figure_of, listed, table_of
from vqlib.reporting.families import family, stem
from vqlib.reporting.judging import is_copy_of_vq
from vqlib.reporting.results import PRECISION, Results
from vqlib.reporting.style import palette
from vqlib.reporting.tables import NOTHING, half_interval, number, with_interval

CODECS = {"jpeg": "JPEG", "webp": "WebP"}
STARS = (
    " A star is the rate of all latents, real numbers at 8 bits, under the learnt prior of those seeds that have one, "
    "at the mean PSNR of all; with several symbols a position their joint histogram already saves a part (table of "
    "priors)."
)
IN_COMMON = 0.5  # dB, for a Bjontegaard difference
ANCHOR = ("vq_ema", "vq_large")  # one kind of codebook, kept in use, in two sizes: the only curve without a gain


def rate_points(results: Results) -> pd.DataFrame:
    """Where every run lies: a row per run and precision, bits per pixel as coded or, where not coded, nominal."""
    rows = []
    for run in results.runs["run"]:
        evaluation = results.evaluations[run]
        rate, test = evaluation["rate"], evaluation["test"]
        prior = _prior_bpp(results, run)
        curve = rate.get("precisions") or []
        if not curve and rate["bpp_32bit"] != rate["bpp_codes"]:  # continuous, and measured at two precisions only
            curve = [{"bits": 8, "bpp_nominal": rate["bpp_8bit"], "psnr": test.get("psnr_8bit")},
                     {"bits": 32, "bpp_nominal": rate["bpp_32bit"], "psnr": test["psnr"]}]  # fmt: skip
        if not curve:
            curve = [{"bits": 0, "bpp_nominal": rate["bpp_codes"], "bpp_bitstream": rate.get("bpp_bitstream"),
                      "psnr": test["psnr"]}]  # fmt: skip
        for point in curve:
            coded = point.get("bpp_bitstream")
            rows.append({
                "model": evaluation["variant"], "run": run, "bits": point["bits"],
                "bpp": point["bpp_nominal"] if coded is None else coded, "nominal": point["bpp_nominal"],
                "prior": prior if point["bits"] in (0, 8) else nan, "psnr": point["psnr"],
                "codes": rate["bpp_codes"],
            })  # fmt: skip
    frame = pd.DataFrame(rows)
    numeric = ["bits", "bpp", "nominal", "prior", "psnr", "codes"]
    return frame.astype(dict.fromkeys(numeric, float)).astype({"bits": int})


def _coded(results: Results) -> bool:
    """Whether bitstreams were measured."""
    return bool(results.runs.get("rate.bpp_bitstream", pd.Series(dtype=float)).notna().any())


def _prior_bpp(results: Results, run: str, key: str = "bpp_prior") -> float:
    value = results.priors.get(run, {}).get("rate", {}).get(key)
    return nan if value is None else float(value)


def mean_of(values: Iterable[float]) -> float:
    """Of those that exist, NaN where none does."""
    there = [value for value in values if value == value]
    return sum(there) / len(there) if there else nan


def idle(results: Results) -> list[str]:
    """Models that could store numbers and store none: copies of vq, whose precision is no axis."""
    return [model for model in results.models
            if all(is_copy_of_vq(results, run) for run in results.runs_of(model))]  # fmt: skip


def joined(points: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """The points with those of the first of these models alone, as of codes, under a name for all of them."""
    own = points[points["model"] == models[0]]
    one = own[own["bits"] == own["bits"].max()]
    one = one.assign(bits=0, model=name_of(models), nominal=one["codes"])
    return pd.concat([points[~points["model"].isin(models)], one], ignore_index=True)


def name_of(models: Sequence[str]) -> str:
    """``frequency_312 to 502 (= vq)``"""
    last = f" to {models[-1].rpartition('_')[2]}" if len(models) > 1 else ""
    return f"{models[0]}{last} (= vq)"


def by_kind(models: Sequence[str]) -> list[list[str]]:
    """Models that differ in the number at the end of their names alone, together and by that number."""
    kinds: dict[tuple, list[str]] = {}
    for model in models:
        name, value = stem(model)
        kinds.setdefault((name, value is None), []).append(model)
    return [sorted(kind, key=lambda model: stem(model)[1] or 0) for kind in kinds.values()]


def rate_distortion(results: Results) -> Exhibit:
    points = rate_points(results)
    shown = [model for model in results.models if family(model) != "intervention"]
    points = points[points["model"].isin(shown)]
    told = {}
    for model in shown:
        own = points[points["model"] == model]
        place = own[own["bits"] == (8 if (own["bits"] == 8).any() else own["bits"].iloc[0])]
        told[model] = f"{number(float(place['psnr'].mean()))} dB at {number(float(place['bpp'].mean()))} bpp"
    codecs = results.codecs or {}
    caption = (
        "Distortion against rate: up and to the left is better, and errors alone compare only models of one rate. "
        "Bits are those of real bitstreams where there are any, else nominal. A model with continuous latents is a "
        "curve over their precision; its 32-bit end is where the paper's models lie. Bars are 95 % intervals of means "
        "over three seeds or more."
        f"{STARS if points['prior'].notna().any() else ''}"
        f"{listed(' With 8 bits for a continuous number, where there are any:', told)}"
    )
    if codecs:
        sizes = codecs.get("mosaic", {})
        caption += (
            f" JPEG ({codecs['settings'].get('jpeg', '')}) and WebP ({codecs['settings'].get('webp', '')}) on "
            f"{codecs['images']:,} of the same test images, solid as mosaics of {sizes.get('rows')} x "
            f"{sizes.get('columns')} images, and on {codecs['file_images']:,}, dashed, as a file each, where the "
            "headers cost more than so small a picture."
        )
    if len(shown) < len(results.models):
        caption += " The interventions are left out here."
    copies, colours = by_kind([model for model in idle(results) if model in shown]), palette(results.variants)
    for kind in copies:
        points, colours = joined(points, kind), colours | {name_of(kind): colours[kind[0]]}
    if copies:
        caption += " No position of the models marked (= vq) is continuous: they are one point, `vq` of the same seed."
    figure = rate_figures.rate_distortion(points, codecs.get("codecs", {}), colours)
    return figure_of("rate_distortion", "Distortion against rate", figure, caption, results, *results.runs_of(*shown))


def rates(results: Results) -> Exhibit | None:
    """Every way of counting, None where only nominal rates were measured."""
    columns = {
        "codes, nominal": "rate.bpp_codes",
        "codes, entropy": "rate.bpp_entropy",
        "codes, cross-entropy": "rate.bpp_cross_entropy",
        "codes, bitstream": "rate.bpp_bitstream",
        "all, bitstream at 8 bits": "rate.bpp_bitstream_8bit",
        "continuous": "rate.continuous_fraction",
    }
    if not _coded(results):
        return None
    shown, values = [], []
    for model in results.models:
        texts, numbers = cells(results, model, columns)
        for title, key in (("codes, prior", "bpp_codes_prior"), ("all, prior", "bpp_prior")):
            costs = [_prior_bpp(results, run, key) for run in results.runs_of(model)]
            there = sum(cost == cost for cost in costs)
            numbers[title] = mean_of(costs)
            texts[title] = number(numbers[title]) + (f" ({there} of {len(costs)})" if 0 < there < len(costs) else "")
        first = [title for title in columns if title.startswith("codes")]
        order = ("model", "seeds", *first, "codes, prior", "all, bitstream at 8 bits", "all, prior", "continuous")
        shown.append({title: texts[title] for title in order})
        values.append(numbers)
    caption = (
        "What the latents cost, in bits per pixel. Codes alone: nominal (fixed length), order-0 entropy of the test "
        "codes, each symbol of a position by itself, their cross-entropy under a table learnt on training images, the "
        "real bitstream under that table, decoded back, and under a learnt prior where one was fitted (to so many of "
        "the runs, where not to all). All: codes and continuous numbers at 8 bits, as a bitstream under such tables "
        "and under the learnt prior, there with the class; compare the two columns so named with each other alone. The "
        "b bits of a gain in `gain_shape` are symbols like the codes, one of them its sign. Continuous is the share of "
        "positions with stored numbers."
    )
    return table_of("rates", "What the bits are", shown, values, caption, results)


def precisions(results: Results) -> Exhibit | None:
    """What rounding the continuous latents costs, None where no model has a curve over their precision."""
    tables = {model: results.precisions(model) for model in results.models}
    curves = {model: table.groupby("bits")[list(PRECISION)].mean() for model, table in tables.items()}
    copies = idle(results)
    curves = {model: curve for model, curve in curves.items() if len(curve) and model not in copies}
    if not curves:
        return None
    bits = sorted({int(one) for curve in curves.values() for one in curve.index})
    shown, values = [], []
    for model, curve in curves.items():
        seeds = len(results.runs_of(model))
        texts, numbers = {"model": f"`{model}`", "seeds": str(seeds)}, {"model": model, "seeds": seeds}
        for b in bits:
            if b not in curve.index:
                texts[f"{b} bits"] = NOTHING
                continue
            psnr, bpp = curve.loc[b, ["psnr", "bpp_bitstream"]]
            half = half_interval(tables[model]["psnr"][tables[model]["bits"] == b].to_numpy())
            texts[f"{b} bits"] = f"{with_interval(psnr, half)} at {number(bpp, 3)}"
            numbers |= {f"psnr_{b}": psnr, f"bpp_{b}": bpp} | ({f"psnr_{b}_interval": half} if half == half else {})
        shown.append(texts)
        values.append(numbers)
    caption = (
        "Models with continuous latents: PSNR (dB) at the bits per pixel of the whole bitstream, with so many bits for "
        f"each continuous number.{left_out(copies)}"
    )
    return table_of("precisions", "What rounding continuous latents costs", shown, values, caption, results,
                    *results.runs_of(*curves))  # fmt: skip


def left_out(copies: Sequence[str]) -> str:
    """The sentence on models that are not in a table of continuous latents."""
    return f" Left out, since nothing is continuous in them: {in_backticks(copies)}." if copies else ""


def in_backticks(models: Sequence[str]) -> str:
    return ", ".join(f"`{model}`" for model in models)


def bd_rates(results: Results) -> Exhibit | None:
    """Bjontegaard's rate difference of every curve against codebooks in use and the codecs; None without curves."""
    points, copies = rate_points(results), idle(results)
    curves = {model: _curve(points, [model]) for model in results.models
              if family(model) != "intervention" and model not in copies}  # fmt: skip
    curves = {model: curve for model, curve in curves.items() if len(curve) > 1}
    shapes = [model for model in results.models if stem(model)[0] == "gain_shape"]
    if len(shapes) > 2:
        curves["gain_shape, all bits"] = _curve(points, shapes)
    codecs = results.codecs["codecs"] if results.codecs else {}
    mosaics = {title: codecs.get(name, {}).get("mosaic") for name, title in CODECS.items()}
    codebooks = ", ".join(ANCHOR)
    anchors = {codebooks: _curve(points, ANCHOR)}
    anchors |= {title: [(point["bpp"], point["psnr"]) for point in line] for title, line in mosaics.items() if line}
    if not curves or not _coded(results) or max(map(len, anchors.values())) < 2:
        return None
    shown, values = [], []
    for name, curve in curves.items():
        texts, numbers = {"curve": f"`{name}`", "points": str(len(curve))}, {"curve": name, "points": len(curve)}
        for title, anchor in anchors.items():
            percent, reason = bd_rate(anchor, curve, IN_COMMON)
            if len(anchor) > 1:
                texts[f"against {title}"] = f"{percent:+,.0f} %" if percent is not None else reason.partition(":")[0]
            numbers[f"against {title}"] = percent
        shown.append(texts)
        values.append(numbers)
    caption = (
        "Mean difference in rate at equal PSNR (Bjontegaard), on bitstreams: -50 % is half the bits. It is a mean over "
        f"the PSNRs that both curves reach, {IN_COMMON:g} dB of them at the least; where two curves cannot be "
        f"compared, a cell says why.{left_out(copies)}"
    )
    if len(anchors[codebooks]) > 1:
        caption += " `vq_ema` and `vq_large` are one kind of codebook, kept in use by moving averages, in two sizes."
    elif any(model in results.models for model in ANCHOR):
        caption += " A codebook is a curve only through its sizes, and `vq_ema` and `vq_large` are not both here; `vq` "
        caption += "is one point, and `vq_large`, whose codebook is kept in use, is no larger `vq`."
    return table_of("bd_rates", "Rates at equal distortion", shown, values, caption, results)


def _curve(points: pd.DataFrame, models: Sequence[str]) -> list[tuple[float, float]]:
    """(bpp, PSNR), means over seeds."""
    mean = points[points["model"].isin(models)].groupby(["model", "bits"])[["bpp", "psnr"]].mean().dropna()
    return [tuple(row) for row in mean.to_numpy()]
