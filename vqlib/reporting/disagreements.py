"""The nine points where paper, project page and released code disagree, each with its evidence."""

from collections.abc import Iterator
from math import ceil, sqrt

import numpy as np

from vqlib.reporting import paper
from vqlib.reporting.judging import (
    CONFIRMED,
    ENOUGH,
    OPEN,
    REFUTED,
    Study,
    Verdict,
    at,
    enough,
    interval,
    lacking,
    named,
    tendency,
    width,
)
from vqlib.reporting.results import Results
from vqlib.reporting.tables import half_interval, number

FOUR_DIGITS = 5e-4  # relative
STRIDE = 4  # of the encoder: f
SIDE = paper.SETTING["image_size"]
DATA_SETS = {"CIFAR-10": (50_000, 10_000), "ImageNet": (1_281_167, 50_000)}  # training and test images
BATCHES_AN_EPOCH, TEST_BATCHES = 391, 78  # of the released code's log
AXES = ("projected", "projected_rows")
FORMULAS = {"vq": "9/16", "projected": "(9+b)/16", "projected_rows": "9/16 + D·b/(4W)"}
MATTERS = {"fraction": 0.01, "frequency": 0.02, "evaluation": 0.01}
NEVER = 0.001  # of the positions: below it the table decides nothing


def axis(study: Study) -> Verdict:
    """1: how many numbers each axis stores."""
    results = enough(study, *AXES) or enough(study, *AXES, seeds=1)
    if results is None:
        return lacking(study, *AXES, seeds=1)
    side = results.experiment.data.image_size // STRIDE
    expected = {"projected": side * side, "projected_rows": width(results) * side}
    found = {model: scalars(results, model) for model in AXES}
    agree = all(abs(found[model] - expected[model]) <= FOUR_DIGITS * expected[model] + 0.5 for model in AXES)
    between = results.ratio("projected_rows", "projected")
    if between.low != between.low:  # too few seeds
        weight = f"Whether it matters needs {ENOUGH} seeds of both."
    else:
        weight = "It matters." if not between.low <= 1 <= between.high else "No difference in the error can be told."
    evidence = (
        f"`projected` stores {number(round(found['projected']))} numbers an image (h·w = {expected['projected']:,}), "
        f"`projected_rows` {number(round(found['projected_rows']))} (D·h = {expected['projected_rows']:,} at width "
        f"{width(results)}; at the paper's, {paper.SETTING['scalars_per_image_of_projected_rows']:,} for the "
        f"{3 * SIDE**2:,} values of an image). MSE of rows over that of positions: {interval(between)} "
        f"({at(results)}). {weight}"
    )
    numbers = {**found, "ratio": between.value}
    return Verdict(CONFIRMED if agree else REFUTED, evidence, numbers, named(results, *AXES), ("models", "setting"))


def scalars(results: Results, model: str) -> float:
    """Continuous numbers of one image, from the rates."""
    pixels = results.experiment.data.image_size**2
    return (results.mean(model, "rate.bpp_32bit") - results.mean(model, "rate.bpp_codes")) * pixels / 32


def data_set(_: Study) -> Verdict:
    """2: which data the released log's batches count."""
    batch = paper.SETTING["batch_size"]
    counted = {name: (ceil(train / batch), test // batch) for name, (train, test) in DATA_SETS.items()}
    fits = [name for name, counts in counted.items() if counts == (BATCHES_AN_EPOCH, TEST_BATCHES)]
    evidence = (
        f"The released log has {BATCHES_AN_EPOCH} batches of {batch} an epoch and tests on "
        f"{paper.SETTING['test_images']:,} images. "
        + "; ".join(f"{name} would give {train:,} and {batch * test:,}" for name, (train, test) in counted.items())
        + f". So the paper's numbers are of {' or '.join(fits) or 'neither'}, and the page's ImageNet is not what was "
        f"run."
    )
    said = CONFIRMED if fits == [paper.SETTING["data"]] else REFUTED
    return Verdict(said, evidence, {f"{name}.batches": train for name, (train, _) in counted.items()})


def rate(study: Study) -> Verdict:
    """3: the rate formulas against the nominal rates of the runs."""
    checked = [(results, *one) for results in study for one in formulas(results)]
    if not checked:
        return lacking(study, "vq", *AXES, seeds=1)
    wrong = dict.fromkeys(f"`{results.experiment.name}` {run}" for results, run, found, expected in checked
                          if abs(found - expected) > FOUR_DIGITS * expected)  # fmt: skip
    used = dict.fromkeys(row["variant"] for results in study for row in compared(results))
    papers = {bits: 9 / STRIDE**2 + paper.SETTING["width"] * bits / (STRIDE * SIDE) for bits in (8, 32)}
    runs = tuple(dict.fromkeys((results.experiment.name, run) for results, run, *_ in checked))
    evidence = (
        f"Nominal rates of {len(runs)} runs against {' and '.join(f'{FORMULAS[m]} (`{m}`)' for m in used)}: "
        + (f"other in {', '.join(wrong)}." if wrong else "all agree to four digits.")
        + "".join(
            f" No run of `{model}`, so {FORMULAS[model]} is arithmetic alone."
            for model in FORMULAS
            if model not in used
        )
        + f" At the paper's width the released axis costs {number(papers[8])} bits per pixel with 8-bit gains and "
        f"{number(papers[32])} with 32-bit gains; the raw image has 24, and the paper counts none."
    )
    return Verdict(REFUTED if wrong else CONFIRMED, evidence, {"runs": len(runs)}, runs, ("models",))


def formulas(results: Results) -> Iterator[tuple[str, float, float]]:
    """(run, its nominal rate, what the formula gives) of the runs of the paper's models, at 8 and at 32 bits."""
    side = results.experiment.data.image_size
    for row in compared(results):
        codes = (row["provenance.num_embeddings"] - 1).bit_length() / STRIDE**2
        per_bit = {"vq": 0, "projected": 1 / STRIDE**2, "projected_rows": row["provenance.width"] / (STRIDE * side)}
        for bits in (8, 32):
            yield row["run"], row[f"rate.bpp_{bits}bit"], codes + bits * per_bit[row["variant"]]


def compared(results: Results) -> list[dict]:
    """The runs of the paper's models that have a formula."""
    return results.runs[results.runs["variant"].isin(list(FORMULAS))].to_dict("records")


def frequency_table(study: Study) -> Verdict:
    """4: the table of the released code against one that is kept, at the same S."""
    idle = []
    for results in study:
        for released in (model for model in results.models if model.startswith("frequency_released")):
            kept = released.replace("_released", "")
            if not results.runs_of(kept):
                continue
            fractions = [results.mean(model, "rate.continuous_fraction") for model in (released, kept)]
            errors = results.ratio(released, kept)
            told = (
                f"`{released}` has {number(100 * fractions[0], 3)} % continuous positions and `{kept}` "
                f"{number(100 * fractions[1], 3)} %, its MSE is {interval(errors)} times as great ({at(results)})"
            )
            if max(fractions) < NEVER:
                idle.append(told)
                continue
            differ = abs(fractions[0] - fractions[1]) > MATTERS["fraction"] or (
                abs(errors.value - 1) > MATTERS["frequency"])  # fmt: skip
            several = min(len(results.runs_of(model)) for model in (released, kept)) >= ENOUGH
            matters = "It matters." if several else "That is above the limit, in too few runs to say that it matters."
            none = "It makes no difference here." if several else "No difference above the limits was seen."
            evidence = f"{told}. {matters if differ else none}"
            numbers = {"fraction_released": fractions[0], "fraction_kept": fractions[1], "ratio": errors.value}
            said = tendency(CONFIRMED if differ else "confirmed, without effect here", results, released, kept)
            return Verdict(said, evidence, numbers, named(results, released, kept), ("models", "rates"))
    seen = f"{'; '.join(idle)}: where next to nothing is continuous no table can matter. " if idle else ""
    return Verdict(OPEN, f"{seen}Needs `frequency_released_S` and `frequency_S` in one experiment, at one S at which "
                         f"{100 * NEVER:g} % of the positions or more are continuous.")  # fmt: skip


def evaluation(study: Study) -> Verdict:
    """5: the same weights measured as released and as described; the paper's models decide."""
    key = "released_protocol.mse"
    for results in study:
        if key not in results.runs:
            continue
        measured = results.runs.dropna(subset=[key])
        changes = {model: (runs[key] / runs["test.mse"] - 1).to_numpy()
                   for model, runs in measured.groupby("variant", sort=False)}  # fmt: skip
        papers = [model for model in ("vq", *AXES) if model in changes]
        if not papers:
            continue
        clear = [model for model, of in changes.items() if len(of) >= ENOUGH and abs(of.mean()) >= max(
            half_interval(of), MATTERS["evaluation"])]  # fmt: skip
        decisive = [model for model in clear if model in papers]
        told = [change_told(model, changes[model]) for model in papers]
        others = [change_told(model, changes[model]) for model in clear if model not in papers]
        most = max(changes, key=lambda model: np.abs(changes[model]).max())
        runs = measured[measured["variant"].isin(papers)]
        images = " or ".join(number(count) for count in sorted(set(runs["released_protocol.images"])))
        evidence = (
            f"Batch statistics of shuffled batches of {paper.SETTING['batch_size']}, {images} images in all, instead "
            f"of running statistics and all images change the test MSE of the same weights: {', '.join(told)} "
            f"({at(results)})."
        )
        if decisive:
            evidence += f" It matters for {', '.join(f'`{model}`' for model in decisive)}."
        else:
            evidence += " In none of these can an effect be told from the scatter of seeds."
        if others:
            evidence += f" Of the other models, which do not vote: {', '.join(others)}."
        evidence += f" The most that a run changes by: {100 * max(changes[most], key=abs):+.1f} % (`{most}`)."
        said = CONFIRMED if decisive else tendency("confirmed, no effect seen in the paper's models", results, *papers)
        numbers = {f"{model}.change": float(changes[model].mean()) for model in changes}
        return Verdict(
            said,
            evidence,
            numbers,
            named(results, *papers, *(model for model in clear if model not in papers)),
            ("setting",),
        )
    return Verdict(OPEN, "Needs the same weights measured with batch statistics (`released_protocol` in results/).")


def change_told(model: str, changes: np.ndarray) -> str:
    """The mean of relative changes and half of its 95 % interval: +1.0 ± 1.9 % (3 seeds), after the model's name."""
    scatter = f" ± {100 * half_interval(changes):.1f}" if len(changes) >= ENOUGH else ""  # signed, with one decimal
    return f"`{model}` {100 * changes.mean():+.1f}{scatter} % ({len(changes)} seed{'s' * (len(changes) > 1)})"


def beta(study: Study) -> Verdict:
    """6: which term β multiplies."""
    value = paper.SETTING["beta"]
    weights = {results.experiment.runs[run].variant.weights.get("commitment_loss", 1.0)
               for results in study for run in results.runs_of("vq", *AXES)}  # fmt: skip
    same = value == 1 and weights <= {1.0}
    evidence = (
        f"Both formulas, L + β·codebook + commitment and L + codebook + β·commitment, are one at β = {value:g}, which "
        f"is the released value{' and that of our runs' if same and weights else ''}."
    )
    return Verdict("confirmed, without effect" if same else CONFIRMED, evidence, {"beta": value})


def norms(study: Study) -> Verdict:
    """7: how small the codes are at initialisation, U(-1/K, 1/K)."""
    codes = paper.SETTING["num_embeddings"]
    position, row = (sqrt(values / 3) / codes for values in (paper.SETTING["width"], SIDE // STRIDE))
    evidence = (
        f"√(D/3)/K and √(h/3)/K are {number(position, 2)} per position and {number(row, 2)} per row at the paper's "
        f"size."
    )
    for results in study:
        runs = results.runs[results.runs["variant"].isin(["vq", *AXES])]
        first = results.history[results.history["run"].isin(runs["run"])].groupby("run").first()
        if "smallest_code_norm" not in first or first["smallest_code_norm"].isna().all():
            continue
        ours = sqrt(width(results) / 3) / codes
        norms = first["smallest_code_norm"]
        least = float(norms.max())  # of the run whose codes are longest
        fits = 0.5 * ours < least < ours
        evidence += (
            f" Of the {len(first)} runs here, the first row of each log has a least norm of its {codes} codes of "
            f"{' to '.join(dict.fromkeys(number(float(norm), 3) for norm in (norms.min(), least)))}, where "
            f"√(D/3)/K is {number(ours, 3)} (width {width(results)}). Whether it makes training "
            "unstable is claim “C2, its cause”."
        )
        return Verdict(CONFIRMED if fits else REFUTED, evidence, {"position": position, "row": row, "least": least},
                       named(results, "vq", *AXES), ("stability",))  # fmt: skip
    return Verdict(
        OPEN, f"{evidence} Needs `smallest_code_norm` in the log of a run.", {"position": position, "row": row}
    )


def factor(_: Study) -> Verdict:
    """8: "factor of 2" against the paper's own bars."""
    value, least, greatest = paper.error_ratio("projected")
    inside = 1 / greatest <= 2 <= 1 / least
    evidence = (
        f"By the bars of its Figure 5 the factor is {number(1 / value, 2)}, between {number(1 / greatest, 2)} and "
        f"{number(1 / least, 2)} with the reading's uncertainty: 2 is {'inside' if inside else 'outside'}."
    )
    return Verdict(REFUTED if inside else CONFIRMED, evidence, {"factor": 1 / value})


def in_place(study: Study) -> Verdict:
    """9: the released projection loss, which sees relu(P)."""
    released, plain = "projected_rows_released", "projected_rows"
    results = enough(study, released, plain)
    if results is None:
        return lacking(study, released, plain)
    found = results.ratio(released, plain)
    matters = not found.low <= 1 <= found.high
    evidence = (
        f"`{released}` has {interval(found)} times the test MSE of `{plain}` over "
        f"{len(results.runs_of(released))} and {len(results.runs_of(plain))} seeds ({at(results)}). "
        f"{'It matters.' if matters else 'No difference can be told.'}"
    )
    return Verdict(CONFIRMED if matters else "confirmed, no effect seen", evidence, {"ratio": found.value},
                   named(results, released, plain), ("models",))  # fmt: skip
