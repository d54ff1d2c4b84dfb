"""The figures and tables of a report: a function each, Results in, Exhibit out, with a caption that reads it."""

import dataclasses
from collections.abc import Callable

import pandas as pd

from vqlib.params import short
from vqlib.reporting import figures, paper, question_exhibits, rate_exhibits
from vqlib.reporting.exhibit import Exhibit, cells, figure_of, listed, provenance, table_of
from vqlib.reporting.families import OTHER, family
from vqlib.reporting.prior_exhibits import prior_exhibits
from vqlib.reporting.rate_exhibits import idle, in_backticks
from vqlib.reporting.results import Results
from vqlib.reporting.statistics import highest_step
from vqlib.reporting.style import palette
from vqlib.reporting.tables import NOTHING, number, plain

PROJECTED = ("projected", "projected_rows")  # the text's axis and the released code's
LOSSES = {"reconstruction": "mse", "quantization": "quantization"}  # the paper's word -> ours in results/
SPLITS = ("train", "test")
MOST_CURVES = 6  # of training, with those of interventions
MOST_ROWS = 8  # models of reconstructions, with seven images each; of more, one of each kind
FOR_THE_FILE = ("MSE at 8 bits", "codes used")  # columns of Table 1 that its CSV has, and a page has no room for
TWO_AXES = (
    "The paper has one Projected-Latent model: its text describes `projected`, its released code projects along the "
    "axis of `projected_rows`."
)
SAME_MODE = (
    "Train and test are measured alike here: the best weights, evaluation mode, as many images of each; the paper's "
    "training losses are those of training mode."
)


def models(results: Results) -> Exhibit:
    """Error and rate, a row per variant."""
    measured = {
        "MSE": "test.mse",
        "PSNR": "test.psnr",
        "SSIM": "test.ssim",
        "LPIPS": "test.lpips",
        "rFID": "test.rfid",
        "bpp": "rate.bpp_32bit",
        "bpp at 8 bits": "rate.bpp_8bit",
        "MSE at 8 bits": "test.mse_8bit",
        "bpp, bitstream at 8 bits": "rate.bpp_bitstream_8bit",
        "perplexity": "test.perplexity",
        "codes used": "test.codebook_usage",
    }
    always = ("test.mse", "test.psnr", "test.ssim", "rate.bpp_32bit", "rate.bpp_8bit")
    measured = {title: column for title, column in measured.items()
                if column in always or any(results.mean(model, column) == results.mean(model, column)
                                           for model in results.models)}  # fmt: skip
    shown, values = [], []
    for model in results.models:
        texts, numbers = cells(results, model, measured)
        ratio = numbers["test.mse"] / results.mean("vq", "test.mse")
        texts |= {"MSE / vq": number(ratio), "paper's MSE / vq": _paper_ratio(model)}
        order = ["model", "seeds", "MSE", "MSE / vq", "paper's MSE / vq", *measured]
        order = [title for title in order if title not in FOR_THE_FILE]
        shown.append({title: texts[title] for title in order})
        values.append(numbers | {"mse_over_vq": ratio})
    caption = (
        "Error and rate on the test split. MSE on [-1, 1]; PSNR (dB, mean over images) and SSIM after "
        "rounding to 8 bits. bpp is the nominal rate in bits per pixel, with codes of fixed length and continuous "
        "latents as 32-bit floats or, where it says so, rounded to 8 bits each by a uniform quantizer whose range "
        "comes from training images. A raw image has 24 bpp. Codes of fixed length cost log2 K bits however few are "
        "in use; the real bitstream, continuous latents at 8 bits, shows what all cost. MSE / vq is the error over "
        "that of `vq`, and beside it stands the paper's own ratio on CIFAR-10, there with the uncertainty of reading "
        "its bars. "
        f"{TWO_AXES}"
    )
    return table_of("models", "Error and rate", shown, values, caption, results)


def tuned(make: Callable[[Results], Exhibit]) -> Callable[[Results], Exhibit | None]:
    """The same exhibit of the models whose learning rates were searched, each at the one that validation chose; None
    where none was searched."""

    def made(results: Results) -> Exhibit | None:
        own = results.tuned()
        if own.runs.empty:
            return None
        exhibit = make(own)
        rates = own.runs.groupby("variant", sort=False)["learning_rate"].first().map(short)
        told = "; ".join(f"{rate}: {in_backticks(models.index)}" for rate, models in rates.groupby(rates, sort=False))
        caption = (
            f"The models whose learning rates were searched, each at the one that validation chose ({told}). "
            f"{exhibit.caption}"
        )
        return dataclasses.replace(exhibit, name=f"{exhibit.name}_tuned", caption=caption,
                                   heading=f"{exhibit.heading}, each model at its own learning rate",
                                   provenance=provenance(results, own.runs["run"]))  # fmt: skip

    return made


def reconstructions(results: Results) -> Exhibit:
    models = results.models if len(results.models) <= MOST_ROWS else representatives(results)
    first = results.runs[results.runs["variant"].isin(models)].drop_duplicates("variant")
    measured = bool(first["rate.bpp_bitstream_8bit"].notna().all())
    rows = {}
    for run, bpp in zip(first["run"], first[f"rate.bpp_{'bitstream_' if measured else ''}8bit"], strict=True):
        test = results.evaluations[run]["test"]
        psnr = test.get("psnr_8bit") or test["psnr"]  # nothing to round where all is discrete
        rows[f"{run}\n{number(psnr)} dB, {number(bpp, 3)} bpp"] = results.strips[run][1]
    originals = results.strips[first["run"].iloc[0]][0]
    caption = (
        "Test images and what every model makes of them (the paper's Figures 2 and 3), the same images in each row. "
        "Names are those of runs: `vq-0` is seed 0 of `vq`, and its PSNR is over the whole test split"
        f"{', not the mean over seeds' if len(results.runs) > len(results.models) else ''}. PSNR and "
        f"{'bits per pixel of the bitstream' if measured else 'nominal bits per pixel'} are with continuous latents "
        "rounded to 8 bits each, which the pictures are not."
    )
    if len(models) < len(results.models):
        caption += (
            " Shown are `vq`, the paper's projections, models of names of their own and, of each other kind, the model "
            "with the least validation error; no interventions, and no copies of `vq`."
        )
    figure = figures.reconstructions(originals, rows)
    return figure_of("reconstructions", "Reconstructions", figure, caption, results, *first["run"])


def representatives(results: Results) -> list[str]:
    """``vq``, the paper's projections and models of names of their own, and of each other kind of model the one with
    the least validation error; no interventions and no copies of ``vq``."""
    copies = idle(results)
    models = [model for model in results.models if family(model) != "intervention" and model not in copies]
    shown = {model for model in models if model in ("vq", *PROJECTED) or family(model) == OTHER}
    for kind in dict.fromkeys(map(family, models)):
        errors = {model: results.mean(model, "validation_mse") for model in models if family(model) == kind}
        others = {model: error for model, error in errors.items() if model not in shown and error == error}
        shown |= set(sorted(others, key=others.get)[:1])
    return [model for model in models if model in shown]


def losses(results: Results) -> Exhibit:
    """The paper's Figure 5."""
    records = results.runs.to_dict("records")
    rows = [(run["variant"], run["variant"], loss, split, run.get(f"{split}.{key}"))
            for run in records for loss, key in LOSSES.items() for split in SPLITS]  # fmt: skip
    theirs = [(entry["title"], variant, loss, split, entry[split][loss])
              for variant, entry in paper.LOSSES.items() for loss in LOSSES for split in SPLITS]  # fmt: skip
    frames = [pd.DataFrame(part, columns=["model", "variant", "loss", "split", "value"]).astype({"value": float})
              for part in (rows, theirs)]  # fmt: skip
    others = [model for model in results.models if model != "vq" and "vq" in results.models]
    ratios = {model: number(results.mean(model, "test.mse") / results.mean("vq", "test.mse")) for model in others}
    _, least, greatest = paper.error_ratio("projected")
    caption = (
        "The four losses of every model (the paper's Figure 5). Bars are means over seeds, which are the dots, with "
        "their 95 % intervals."
        f"{listed(' Test reconstruction loss over that of `vq`:', ratios)} The paper's Projected-Latent over its "
        f"VQ-VAE: {least:.2f} to {greatest:.2f}, from values {paper.LOSSES_SOURCE}, ± {paper.UNCERTAINTY}. "
        f"{_differences(results)} {SAME_MODE} A model without a codebook has no quantization loss."
    )
    figure = figures.loss_bars(*frames, palette(dict.fromkeys([*results.variants, *paper.LOSSES])))
    return figure_of("losses", "The four losses, beside the paper's", figure, caption, results)


def losses_table(results: Results) -> Exhibit:
    titles = {f"{loss}, {split}": (loss, split) for loss in LOSSES for split in SPLITS}
    shown, values = [], []
    for model in results.models:
        texts, numbers = cells(results, model, {title: f"{split}.{LOSSES[loss]}"
                                                 for title, (loss, split) in titles.items()})  # fmt: skip
        texts["bpp"] = number(results.mean(model, "rate.bpp_32bit"))
        theirs = paper.LOSSES.get(paper.COUNTERPART.get(model))
        for title, (loss, split) in titles.items():
            texts[f"paper's {title}"] = f"{theirs[split][loss]:.4f}" if theirs else NOTHING
            numbers[f"paper.{split}.{loss}"] = theirs[split][loss] if theirs else None
        shown.append(texts)
        values.append(numbers)
    caption = (
        f"The numbers behind the bars, and the paper's for the model of the same kind, ± {paper.UNCERTAINTY}. "
        f"{TWO_AXES} {_differences(results)} {SAME_MODE}"
    )
    return table_of("losses", "The same as numbers", shown, values, caption, results)


def learning_curves(results: Results) -> Exhibit:
    copies = idle(results)
    drawn = results.runs_of(*(model for model in results.models if model not in copies))
    history = results.history[results.history["run"].isin(drawn)]  # not the grid of learning rates, which is no seed
    validation = history[history["split"] == "validation"]
    last = validation.groupby("run", sort=False).last()
    ends = last.groupby("variant", sort=False)["recon_loss"].mean().map(number).to_dict()
    caption = (
        "Validation error and perplexity of the codes against training step"
        f"{'; a band spans the seeds of a model' if len(drawn) > last['variant'].nunique() else ''}."
        f"{listed(' Validation MSE at the end:', ends)}"
    )
    if len(ends) > figures.FEW and "identity" in ends:
        caption += f" `identity`, not drawn, ends at {ends['identity']}."
    if copies:
        caption += f" Left out, since they are `vq`, no position being continuous: {in_backticks(copies)}."
    figure = figures.learning_curves(history, palette(results.variants))
    return figure_of("learning_curves", "Learning curves", figure, caption, results, *drawn)


def projected_training(results: Results) -> Exhibit | None:
    """The paper's Figure 1, with interventions beside it where there is room. None without a projected one."""
    runs = results.runs_of(*PROJECTED)
    if not runs:
        return None
    changed = [model for model in results.models if family(model) == "intervention"]
    interventions = results.runs_of(*changed) if changed else []
    if len(runs) + len(interventions) <= MOST_CURVES:
        runs += interventions
    history = results.history[results.history["run"].isin(runs)]
    peaks = {run: number(highest_step(history[history["run"] == run])) for run in runs}
    columns = {"recon_loss": "reconstruction", "commitment_loss": "quantization"}
    references = {ours: {column: paper.LOSSES["projected"][theirs][loss] for column, loss in columns.items()}
                  for ours, theirs in (("train", "train"), ("validation", "test"))}  # fmt: skip
    caption = (
        "Losses of the projected models in training (the paper's Figure 1, whose caption names its panels in the wrong "
        "order). Training losses are means over a logging interval; ours has the validation split where the paper has "
        "its test split. Runs with a late peak are named at it."
        f"{listed(' Worst step of the second half over a typical one (the median over logging intervals):', peaks)} "
        f"{_differences(results)}"
    )
    figure = figures.training_curves(history, palette(results.variants), references)
    return figure_of("projected_training", "The projected models in training", figure, caption, results, *runs)


def setting(results: Results) -> Exhibit:
    """The paper's setting beside this experiment's: how far a number can reach."""
    runs = results.runs
    ours = {key: list(runs[f"provenance.{key}"]) for key in paper.SETTING if f"provenance.{key}" in runs}
    ours |= {"data": list(runs["provenance.source"]), "test_images": list(runs["test.images"])}
    ours |= {"weights_chosen_on": ["the validation split"], "batchnorm_in_evaluation": ["running statistics"]}
    ours["beta"] = [results.experiment.runs[run].variant.weights.get("commitment_loss", 1.0) for run in runs["run"]]
    pixels = results.experiment.data.image_size**2
    for model in PROJECTED:
        real_bits = (results.mean(model, "rate.bpp_32bit") - results.mean(model, "rate.bpp_codes")) * pixels
        ours[f"scalars_per_image_of_{model}"] = [round(real_bits / 32) if real_bits == real_bits else None]
    rows = []
    for key, theirs in paper.SETTING.items():
        what, of, model = key.partition("_of_")
        name = what.replace("_", " ") + (f" of `{model}`" if of else "")
        rows.append(
            {"setting": name, "the paper": plain(theirs), "here": " or ".join(map(plain, dict.fromkeys(ours[key])))}
        )
    caption = (
        "The setting of the paper's numbers and of ours. Scalars are the continuous numbers of one image, which has "
        f"{plain(3 * pixels)} values here: with as many as that, a model need not compress at all."
    )
    return table_of("setting", "How far the numbers reach", rows, rows, caption, results)


def all_exhibits(results: Results) -> dict[str, Exhibit]:
    """In the report's order, labelled "Table 1", "Figure 1", ..."""
    makers = (
        models,
        rate_exhibits.rate_distortion,
        question_exhibits.learning_rates,
        tuned(models),
        tuned(rate_exhibits.rate_distortion),
        rate_exhibits.rates,
        rate_exhibits.precisions,
        rate_exhibits.bd_rates,
        question_exhibits.controls,
        reconstructions,
        losses,
        losses_table,
        question_exhibits.frequency,
        learning_curves,
        projected_training,
        question_exhibits.stability,
        question_exhibits.stability_table,
        question_exhibits.usage,
        question_exhibits.gains,
        setting,
    )
    labelled: dict[str, Exhibit] = {}
    # not every experiment has every figure
    for made in filter(None, [*(make(results) for make in makers), *prior_exhibits(results)]):
        place = 1 + sum(one.kind == made.kind for one in labelled.values())
        labelled[f"{made.kind} {place}"] = made
    return labelled


def _differences(results: Results) -> str:
    """What forbids comparing the paper's absolute values with ours, as a sentence."""
    compared = ("image_size", "train_images", "width", "batch_size", "steps", "learning_rate")
    other = [key.replace("_", " ") for key in compared
             if set(results.runs.get(f"provenance.{key}", ())) != {paper.SETTING[key]}]  # fmt: skip
    if results.experiment.data.source != paper.SETTING["data"].lower().replace("-", ""):
        other.insert(0, "data")
    if not other:
        return "Data, network and budget are the paper's."
    return f"The paper's absolute values are not comparable with ours, which differ in {', '.join(other)}."


def _paper_ratio(model: str) -> str:
    ratio = paper.error_ratio(model)
    if ratio is None:
        return NOTHING
    value, least, greatest = ratio
    return f"{value:.2f} ± {(greatest - least) / 2:.2f}" if greatest > least else number(value)
