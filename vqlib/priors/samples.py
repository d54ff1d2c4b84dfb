"""New images of a run: pictures of them, and how far they are from real ones."""

from typing import Any

import torch
from torch import Tensor

from vqlib.batches import Images
from vqlib.data.reader import Split
from vqlib.evaluation import png, spread
from vqlib.model import VQVAE
from vqlib.priors.fid import fid, what_is_missing
from vqlib.priors.latents import Latents, decode, joined
from vqlib.priors.measures import code_pairs, most_shared_codes, nearest_images, sliced_wasserstein
from vqlib.priors.model import PriorModel
from vqlib.priors.naive import naive_sample
from vqlib.training import seed_of

COLUMNS, ROWS = 8, 4  # of samples in a picture, which has two more rows
MEMORIES = 64  # samples that are held against all training images
GRID, COMPARED, NAIVE = 11, 12, 13  # purposes of draws, see seed_of


def generator_of(seed: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, purpose))


def columns_of(classes: int) -> Tensor:
    """The label of each column of the picture, evenly over the classes."""
    return spread(classes, COLUMNS).repeat(COLUMNS)[:COLUMNS]


def grid(model: VQVAE, prior: PriorModel, seed: int) -> Tensor:
    """The picture's samples (ROWS * COLUMNS, 3, H, W), row by row, each column of one class."""
    drawn = prior.sample(columns_of(prior.classes).repeat(ROWS), COLUMNS * ROWS, 1.0, generator_of(seed, GRID))
    return decode(model, *drawn, prior.layout)


def picture(model: VQVAE, prior: PriorModel, latents: Latents, train: Split, seed: int, device: torch.device) -> bytes:
    """PNG without gaps: the rows of ``grid``; below them the training images nearest to the first row's samples, by
    mean squared error; then samples of which every position's codes and every real was drawn on its own."""
    samples = grid(model, prior, seed)
    pool = Images(train, device)
    nearest, _ = nearest_images(samples[:COLUMNS], pool.in_order(2048))
    naive = naive_sample(latents, COLUMNS, generator_of(seed, NAIVE))
    return png(torch.cat([samples, pool.batch(nearest).cpu(), decode(model, *naive, prior.layout)]), COLUMNS)


def compare(
    model: VQVAE, prior: PriorModel, latents: dict[str, Latents], splits: dict[str, Split], wanted: int, seed: int,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """Two-sample measures against half of the test images, of: samples with these images' classes, naive ones, the
    other half as it is (the floor: what two sets of real images differ by) and its reconstructions, and training images
    (what a perfect prior would draw). And whether samples are memories of these. ``classes`` are the columns of the
    picture, from the left."""
    test = latents["test"]
    half = spread(len(test), 2 * min(wanted, len(test) // 2))
    ours, others = half[::2], half[1::2]
    images = Images(splits["test"], device)
    real, floor = (torch.cat([images.batch(part).cpu() for part in chosen.split(500)]) for chosen in (ours, others))
    layout = prior.layout
    symbols, reals = prior.sample(test.labels[ours], len(ours), 1.0, generator_of(seed, COMPARED))
    naive = naive_sample(latents["train"], len(ours), generator_of(seed, NAIVE))
    rebuilt, like = test.at(others), spread(len(latents["train"]), len(ours))
    sets = {
        "prior": decode(model, symbols, reals, layout),
        "naive": decode(model, *naive, layout),
        "reconstructions": decode(model, rebuilt.symbols, rebuilt.reals, layout),
        "training": Images(splits["train"], device).batch(like).cpu(),
        "floor": floor,
    }
    grids = {"prior": symbols, "naive": naive[0], "training": latents["train"].symbols[like],
             "floor": rebuilt.symbols, "real": test.symbols[ours]}  # fmt: skip
    codes = {name: joined(part, layout.alphabets) for name, part in grids.items()}
    of_real = codes.pop("real")
    missing = what_is_missing()
    pool, few = Images(splits["train"], device), slice(0, MEMORIES)
    errors = {name: nearest_images(part[few], pool.in_order(2048))[1] for name, part in
              (("prior", sets["prior"]), ("reconstructions", sets["reconstructions"]))}  # fmt: skip
    shared = {name: most_shared_codes(codes[key][few], joined(latents["train"].symbols, layout.alphabets))
              for name, key in (("prior", "prior"), ("reconstructions", "floor"))}  # fmt: skip
    return {
        "count": len(ours),
        "classes": [splits["train"].classes[label] for label in columns_of(prior.classes).tolist()],
        "sliced_wasserstein": {name: sliced_wasserstein(part, real) for name, part in sets.items()},
        "code_pairs": {name: code_pairs(part, of_real) for name, part in codes.items()},
        "fid": None if missing else {name: fid(real, part, device) for name, part in sets.items()},
        "fid_missing": missing,
        "nearest_training_mse": {name: float(error.median()) for name, error in errors.items()},
        "nearest_training_codes": {name: float(share.median()) for name, share in shared.items()},
    }
