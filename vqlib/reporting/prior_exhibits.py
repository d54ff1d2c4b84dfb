"""What each prior generates, and what it costs in bits: tables, and pictures of new images."""

import csv
import functools
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from vqlib.errors import ReportError
from vqlib.reporting import paper
from vqlib.reporting.exhibit import Exhibit, shortened
from vqlib.reporting.families import family
from vqlib.reporting.results import Results
from vqlib.reporting.style import WIDTH, styled
from vqlib.reporting.tables import NOTHING, Table, number

# Names of vqlib.priors (``model.NETWORKS``, ``samples.COLUMNS`` and ``ROWS``), which needs torch and a report does not.
NETWORKS = ("pixelcnn", "transformer")
COLUMNS, ROWS = 8, 4  # of samples in a picture; then a row of nearest training images and one without a prior
SETS = {"prior": "samples", "naive": "no prior", "reconstructions": "reconstructions", "training": "training images",
        "floor": "other test images"}  # fmt: skip
CLASS_NAMES = Path(__file__).with_name("class_names.csv")  # WordNet's first word for each of ImageNet's 1,000 classes
MEASURES = {
    "sliced_wasserstein": "pixels: sliced Wasserstein distance",
    "code_pairs": "codes: total variation of neighbouring pairs",
    "fid": "FID",
    "nearest_training_mse": "memory: median MSE to the nearest training image",
    "nearest_training_codes": "memory: median share of codes that one training image has too",
}


def prior_exhibits(results: Results) -> list[Exhibit]:
    """Tables of bits and of distances, then a picture per variant, of its first run; nothing where none was trained."""
    priors = {run: prior for run, prior in results.priors.items() if not prior["reason"]}
    if not priors:
        return []
    first: dict[str, str] = {}
    for run, prior in priors.items():
        first.setdefault(prior["variant"], run)
    pictures = (samples(results, run, priors[run]) for run in first.values())
    return [rates(results, priors), bits(priors), distances(priors), *pictures]


def rates(results: Results, priors: dict[str, dict]) -> Exhibit:
    """Bits per pixel on the test split, a row per run: codes and real numbers apart, and all."""
    shown, values = [], []
    for run, prior in priors.items():
        rate, stream = prior["rate"], prior["bitstream"] or {}
        row = {"all, nominal": rate["bpp_nominal"], "all, order 0": rate["bpp_order0"], "all": rate["bpp_prior"]}
        row |= {"codes, order 0": rate["bpp_codes_order0"], "codes": rate["bpp_codes_prior"]}
        reals = ("bpp_reals_order0", "bpp_reals_prior") if prior["reals"] else ("", "")
        row |= {"reals, order 0": rate.get(reals[0]), "reals": rate.get(reals[1])}
        row |= {"latent bits per colour value": rate["latent_bits_per_value"]}
        row |= {"stream / likelihood": stream["bpp"] / stream["bpp_prior"] if stream else None}
        shown.append({"run": f"`{run}`", **{title: number(value) for title, value in row.items()}})
        values.append({"run": run, "chosen": prior["chosen"], **row})
    coded = max((prior["bitstream"]["images"] for prior in priors.values() if prior["bitstream"]), default=0)
    lacking = "".join(f" `{run}` has none: {reason}." for run, prior in priors.items()
                      if (reason := prior.get("bitstream_missing")))  # fmt: skip
    caption = (
        "Bits per pixel of the test split's latents. All: codes, real numbers at the 8-bit levels of the table of "
        "models and, with several classes, the class. Nominal is codes of fixed length and 8 bits for a real number; "
        "order 0 are histograms of the test latents themselves, which no decoder has, a position's symbols together; "
        "the prior is the network that is better on validation, with a network for the real numbers. Latent bits "
        "per colour value are all of them over the 3 values of a pixel: what the latents cost, no likelihood of the "
        "image and not comparable with bits per dimension."
        f"{stream_told(coded)}{lacking}{no_gain(priors)}{without(results)}"
    )
    table = Table(pd.DataFrame(shown), pd.DataFrame(values))
    return Exhibit("priors", "What a prior costs in bits", table, caption, provenance(priors))


def stream_told(images: int) -> str:
    """A sentence on the column of bitstreams, nothing where none was written."""
    if not images:
        return ""
    return (
        f" The last column is the length of a real bitstream of {images} test images, decoded back exactly, over what "
        "the likelihood says."
    )


def no_gain(priors: dict[str, dict]) -> str:
    """A sentence on the runs whose prior costs as many bits as histograms, or more."""
    losing = [run for run, prior in priors.items() if prior["rate"]["bpp_prior"] >= prior["rate"]["bpp_order0"]]
    told = ", ".join(shortened(losing))
    return f" A prior that saves nothing over these histograms: {told}." if losing else ""


def without(results: Results) -> str:
    """The runs that have no prior, by reason."""
    reasons: dict[str, list[str]] = {}
    for run, prior in results.priors.items():
        if prior["reason"]:
            reasons.setdefault(prior["reason"], []).append(run)
    return "".join(f" No prior ({reason}): {', '.join(shortened(runs))}." for reason, runs in reasons.items())


def bits(priors: dict[str, dict]) -> Exhibit:
    """Bits of a symbol and of a real number under each model, a row for every kind of a run."""
    rows = [{"run": run, **row} for run, prior in priors.items() for row in (*symbols_of(prior), *reals_of(prior))]
    values = pd.DataFrame(rows)
    shown = values.assign(run=[f"`{run}`" for run in values["run"]])
    numeric = [column for column in values if column not in ("run", "of")]
    shown[numeric] = shown[numeric].astype(float).map(number)
    caption = (
        "Bits of one symbol or number on the test split. Order 0 is the entropy of a histogram, the least for one "
        "table for all positions: for symbols of their joint histogram, each given those before it in its position, "
        "for real numbers of a channel's levels. Networks give the bits of a position's symbols given all before and, "
        "with several classes, the class. A real number is rounded to 8-bit levels: under one Gaussian per code, the "
        "page's suggestion, and under the network that sees all codes and the numbers before; nats are those of the "
        "density itself. The paper's log has "
        f"{paper.PRIOR_BITS_PER_CODE} bits per code for its PixelCNN on CIFAR-10: other data, and a codebook whose use "
        "it does not tell, where few bits may be a good prior or few codes in use. Order 0 tells which."
    )
    return Exhibit("prior_bits", "Bits of a code and of a real number", Table(shown, values), caption,
                   provenance(priors))  # fmt: skip


def symbols_of(prior: dict) -> list[dict]:
    """A row per symbol of a position and, where there are several, one for all of them."""
    codes = {"order 0": prior["codes"]["order0"], **{name: prior["codes"][name] for name in NETWORKS}}
    codes = {name: value if isinstance(value, list) else [value] for name, value in codes.items()}
    count = len(codes[NETWORKS[0]])
    names = ["code", *(f"symbol {place}" for place in range(2, count + 1))]
    if family(prior["variant"]) == "ours" and count == 2:
        names[1] = "gain level (one of its bits is the sign)"
    rows = [{"of": name, **{key: bits[place] if len(bits) == count else None for key, bits in codes.items()}}
            for place, name in enumerate(names)]  # fmt: skip
    together = {"of": "all symbols of a position", **{key: sum(bits) for key, bits in codes.items()}}
    return [*rows, together] if count > 1 else rows


def reals_of(prior: dict) -> list[dict]:
    """The row of real numbers, none where nothing is continuous."""
    reals = prior["reals"]
    if not reals:
        return []
    models = {"order 0": "order0", "a Gaussian per code": "gaussian_per_code", "network of reals": "network"}
    found = {title: reals[key]["level_bits"] for title, key in models.items()}
    return [{"of": "real number", **found, "its nats": reals["network"]["nats"]}]


def distances(priors: dict[str, dict]) -> Exhibit:
    """How far samples are from test images, beside real images: a row per measure and run."""
    rows = [{"measure": title, "run": run, **{name: found.get(key) for key, name in SETS.items()}}
            for measure, title in MEASURES.items() for run, prior in priors.items()
            if (found := prior["samples"][measure])]  # fmt: skip
    values = pd.DataFrame(rows)
    shown = values[list(SETS.values())].astype(float).map(number)
    shown.insert(0, "run", [f"`{run}`" for run in values["run"]])
    lacking = dict.fromkeys(prior["samples"]["fid_missing"] for prior in priors.values())
    missing = "".join(f" {line}." for line in lacking if line)
    counts = sorted({prior["samples"]["count"] for prior in priors.values()})
    caption = (
        f"Distance from {' or '.join(f'{count:,}' for count in counts)} test images of as many samples, of samples "
        "without a prior, of reconstructions of other test images, of training images, which a perfect prior would be "
        "like, and of the other test images as they are: what two sets of real images differ by. Pixels: images are "
        "averaged down to 8 x 8, on [-1, 1]; it needs no network and no weights, is exact along each of 256 "
        "directions, and sees colour and layout but no texture. A code, in pairs as in shares, is all symbols of a "
        "position together (of `gain_shape` the unit code and its gain's level); real numbers do not count. Where many "
        "codes are in use most pairs are seen once, and even real images are far from each other. Memory is "
        f"asked for by the median, over samples and over reconstructions.{missing}"
    )
    table = Table(shown, values, tuple(values["measure"]))
    return Exhibit("prior_distances", "How far samples are from images", table, caption, provenance(priors))


def samples(results: Results, run: str, prior: dict) -> Exhibit:
    """New images of one run."""
    where = f"results/{results.experiment.name}/{run}.prior.png"
    size = results.experiment.data.image_size
    try:
        pixels = np.asarray(Image.open(results.experiment.results / f"{run}.prior.png").convert("RGB"))
    except OSError as error:
        raise ReportError(f"{where}: not an image ({error}); run its stage prior again") from None
    if pixels.shape != ((ROWS + 2) * size, COLUMNS * size, 3):
        raise ReportError(f"{where} is {pixels.shape[1]} x {pixels.shape[0]} pixels; it must be {ROWS + 2} rows of "
                          f"{COLUMNS} thumbnails of {size}; run its stage prior again")  # fmt: skip
    tiles = pixels.reshape(ROWS + 2, size, COLUMNS, size, 3).swapaxes(1, 2)
    labels = ["new images", *[""] * (ROWS - 1), "nearest training\nimages to row 1", "without\na prior"]
    classes, names = prior["provenance"]["classes"], drawn_classes(prior)
    unnamed = "" if names else "; results/ holds no names of them"
    several = (
        f", a class per column ({min(COLUMNS, classes)} of {classes}, evenly spread{unnamed})" if classes > 1 else ""
    )
    rate, reals = prior["rate"], prior["reals"]
    networks = f"{prior['chosen']} for the codes, a network for the real numbers" if reals else prior["chosen"]
    caption = (
        f"New images of `{run}`, drawn from its prior ({networks}) at temperature 1{several}. Its latents cost "
        f"{number(rate['bpp_prior'])} bits per pixel on the test split, against {number(rate['bpp_order0'])} under "
        f"histograms and {number(rate['bpp_nominal'])} nominally. Below them the training images nearest to the first "
        "row by mean squared error of pixels, which favours flat ones, then images of which each position's codes"
        f"{' and each real number' if reals else ''} were drawn on their own, as often as they occur: the difference "
        "is what the prior knows."
    )
    name = f"prior_samples_{run.replace('-', '_')}"
    return Exhibit(name, f"New images: {run}", mosaic(tiles, labels, names), caption, provenance({run: prior}))


def drawn_classes(prior: dict) -> list[str]:
    """The class of every column in words, nothing where results are older than its name or there is one class."""
    names = prior["samples"].get("classes") or []
    several = len(names) == COLUMNS and prior["provenance"]["classes"] > 1
    return [class_names().get(name, str(name)) for name in names] if several else []


@functools.cache
def class_names() -> dict[str, str]:
    """The word for each WordNet id, "goldfish" for "n01443537"."""
    with CLASS_NAMES.open(newline="") as file:
        return dict(csv.reader(file))


@styled
def mosaic(tiles: np.ndarray, labels: list[str], columns: Sequence[str] = ()) -> Figure:
    """Rows of thumbnails (rows, N, S, S, 3), a label to the left of each; the last two stand apart.

    ``columns`` are words above the columns.
    """
    rows, size = len(tiles), tiles.shape[2]
    gap, apart = max(1, size // 16), size // 3
    bands = [np.pad(row, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255) for row in tiles]
    bands = [np.concatenate(list(band), axis=1) for band in bands]
    for place in (rows - 2, rows - 1):
        bands[place] = np.pad(bands[place], ((apart, 0), (0, 0), (0, 0)), constant_values=255)
    picture = np.concatenate(bands)
    left = 1.1  # inches, for the labels
    scale = (WIDTH - left) / picture.shape[1]  # inches per pixel
    height, width = picture.shape[0] * scale, WIDTH - left
    above = 0.35 if columns else 0.0  # inches
    figure = Figure(figsize=(WIDTH, height + above))
    ax = figure.add_axes((left / WIDTH, 0, width / WIDTH, height / (height + above)))
    ax.imshow(picture, interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    for label, bottom in zip(labels, np.cumsum([len(band) for band in bands]), strict=True):
        ax.text(-0.1 / scale, bottom - gap - size / 2, label, ha="right", va="center", linespacing=1.35)
    for place, name in enumerate(columns):
        ax.text(place * (size + gap) + size / 2, -0.05 / scale, "\n".join(textwrap.wrap(name, 13)[:2]), ha="center",
                va="bottom", fontsize=6.5)  # fmt: skip
    return figure


def provenance(priors: dict[str, dict]) -> str:
    """Where the numbers come from: what the priors share, and what differs between them."""
    told = []
    for part in (*NETWORKS, "reals"):
        keys = ("layers", "channels", "steps", "learning_rate")
        layers, channels, steps, rate = (_of(priors, f"{part}_{key}") for key in keys)
        told.append(f"{part} {layers} layers, {channels} channels, {steps} steps, learning rate {rate}")
    shared = {"batch_size": "batch", "hardware": "on", "precision": "trained in", "torch": "torch", "code": "code",
              "data": "data", "weights": "weights of the model"}  # fmt: skip
    told += [f"{word} {_of(priors, key)}" for key, word in shared.items()]
    return f"Priors of {', '.join(priors)}. {'; '.join(told)}. Likelihoods in float32."


def _of(priors: dict[str, dict], key: str) -> str:
    values = dict.fromkeys(str(prior["provenance"][key]) for prior in priors.values())
    return " or ".join(values) or NOTHING
