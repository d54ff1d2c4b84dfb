"""What each prior generates, and what it costs in bits: tables, and pictures of new images."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from vqlib.errors import ReportError
from vqlib.reporting import paper
from vqlib.reporting.exhibit import Exhibit, shortened
from vqlib.reporting.results import Results
from vqlib.reporting.style import WIDTH, styled
from vqlib.reporting.tables import NOTHING, Table, number

NETWORKS = ("pixelcnn", "transformer")
GAINS = {"order 0, gain": "order0", "per code, gain": "gaussian_per_code", "network, gain": "network"}
SETS = {"prior": "samples", "naive": "no prior", "reconstructions": "reconstructions", "training": "training images",
        "floor": "other test images"}  # fmt: skip
MEASURES = {"sliced_wasserstein": "pixels", "code_pairs": "code pairs", "fid": "FID",
            "nearest_training_mse": "MSE to nearest", "nearest_training_codes": "codes shared"}  # fmt: skip
COLUMNS, ROWS = 8, 4  # of samples in a picture; then a row of nearest training images and one without a prior


def prior_exhibits(results: Results) -> list[Exhibit]:
    """Tables of bits and of distances, then a picture per variant, of its first run; nothing where none was trained."""
    priors = {run: prior for run, prior in results.priors.items() if not prior["reason"]}
    if not priors:
        return []
    first: dict[str, str] = {}
    for run, prior in priors.items():
        first.setdefault(prior["variant"], run)
    return [bits(results, priors), distances(priors), *(samples(results, run, priors[run]) for run in first.values())]


def bits(results: Results, priors: dict[str, dict]) -> Exhibit:
    """Likelihood on the test split, a row per run."""
    shown, values = [], []
    for run, prior in priors.items():
        codes, reals, rate, stream = (prior[key] for key in ("codes", "reals", "rate", "bitstream"))
        row = {"order 0": sum(codes["order0"]), **{name: sum(codes[name]) for name in NETWORKS}}
        row |= {title: reals[key]["level_bits"] if reals else None for title, key in GAINS.items()}
        row["nats of a gain"] = reals["network"]["nats"] if reals else None
        row |= {"bpp nominal": rate["bpp_nominal"], "bpp order 0": rate["bpp_order0"], "bpp": rate["bpp_prior"]}
        row |= {"bits per dimension": rate["bits_per_dimension"]}
        row |= {"stream / likelihood": stream["bpp"] / stream["bpp_prior"]}
        shown.append({"run": f"`{run}`", **{title: number(value) for title, value in row.items()}})
        values.append({"run": run, "chosen": prior["chosen"], **row})
    reasons: dict[str, list[str]] = {}
    for run, prior in results.priors.items():
        if prior["reason"]:
            reasons.setdefault(prior["reason"], []).append(run)
    without = "".join(f" No prior ({reason}): {', '.join(shortened(runs))}." for reason, runs in reasons.items())
    coded = next(iter(priors.values()))["bitstream"]["images"]
    caption = (
        "Bits under each prior, on the test split. Order 0 is the entropy of the codes' histogram, the least for a "
        "code that looks at one position at a time; `pixelcnn` and `transformer` give the bits of a position's symbols "
        "given those before it and, with several classes, the class. A gain, or any other real number, is rounded to "
        "the same 8-bit levels as in the table of models; its bits are those of its levels' histogram, of one Gaussian "
        "per code, and of the network that sees all codes and the numbers before; nats are those of the density "
        "itself. bpp counts everything, the class too, under the network that is better on validation; nominal is "
        "codes of fixed length and 8 bits for a number. The last column is the length of a real bitstream of "
        f"{coded} test images, decoded back exactly, over what the likelihood says. The paper's log has "
        f"{paper.PRIOR_BITS_PER_CODE} bits per code for its PixelCNN on CIFAR-10.{without}"
    )
    table = Table(pd.DataFrame(shown), pd.DataFrame(values))
    return Exhibit("priors", "What a prior costs in bits", table, caption, provenance(priors))


def distances(priors: dict[str, dict]) -> Exhibit:
    """How far samples are from test images, beside the floor of real ones: a row per run."""
    rows = []
    for run, prior in priors.items():
        found = prior["samples"]
        row = {f"{name}, {title}": (found[measure] or {}).get(key)
               for measure, name in MEASURES.items() for key, title in SETS.items()}  # fmt: skip
        rows.append({"run": run, "count": found["count"], **row})
    values = pd.DataFrame(rows).dropna(axis="columns", how="all")
    shown = values.drop(columns=["run", "count"]).map(number)
    shown.insert(0, "run", [f"`{run}`" for run in values["run"]])
    lacking = dict.fromkeys(prior["samples"]["fid_missing"] for prior in priors.values())
    missing = "".join(f" {line}." for line in lacking if line)
    counts = sorted({prior["samples"]["count"] for prior in priors.values()})
    caption = (
        f"Distance from {' or '.join(f'{count:,}' for count in counts)} test images of as many samples, of samples "
        "without a prior, of reconstructions of other test images, of training images, which a perfect prior would be "
        "like, and of the other test images as they are: a floor that no set can be expected to lie below. Pixels: "
        "sliced Wasserstein distance of images averaged down to 8 x 8, on [-1, 1]; it needs no network and no weights, "
        "is exact along each of 256 directions, and sees colour and layout but no texture. Code pairs: total variation "
        "between the histograms of neighbouring codes. MSE to nearest and codes shared ask for memory: the median MSE "
        "to the nearest training image, and the median share of positions whose codes some one training image has "
        f"too.{missing}"
    )
    table = Table(shown, values)
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
    classes = prior["provenance"]["classes"]
    several = (
        f", a class per column ({min(COLUMNS, classes)} of {classes}, evenly spread; results/ holds no names of them)"
        if classes > 1
        else ""
    )
    caption = (
        f"New images of `{run}`, drawn from its prior ({prior['chosen']}; {number(prior['rate']['bpp_prior'])} bits "
        f"per pixel on the test split) at temperature 1{several}. Below them the training images nearest to the first "
        "row, then images of which every code and real number was drawn on its own, as often as it occurs: the "
        "difference is what the prior knows."
    )
    name = f"prior_samples_{run.replace('-', '_')}"
    return Exhibit(name, f"New images: {run}", mosaic(tiles, labels), caption, provenance({run: prior}))


@styled
def mosaic(tiles: np.ndarray, labels: list[str]) -> Figure:
    """Rows of thumbnails (rows, N, S, S, 3), a label to the left of each; the last two stand apart."""
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
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes((left / WIDTH, 0, width / WIDTH, 1))
    ax.imshow(picture, interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    for label, bottom in zip(labels, np.cumsum([len(band) for band in bands]), strict=True):
        ax.text(-0.1 / scale, bottom - gap - size / 2, label, ha="right", va="center", linespacing=1.35)
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
