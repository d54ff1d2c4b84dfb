"""What the report says and shows of priors, from results as the stage writes them."""

import json

import numpy as np
import pytest
from PIL import Image
from synthetic_results import NAME, add_runs, make_repository

from vqlib.errors import ReportError
from vqlib.reporting import claims_latents
from vqlib.reporting.exhibits import all_exhibits
from vqlib.reporting.prior_exhibits import COLUMNS, ROWS, mosaic, prior_exhibits
from vqlib.reporting.report import report_markdown
from vqlib.reporting.results import load_results
from vqlib.reporting.style import image_bytes

SETS = ("prior", "naive", "reconstructions", "training", "floor")


def write_prior(root, run: str, gains: bool, missing: str | None = "FID needs weights") -> dict:
    """results/<experiment>/<run>.prior.json and .png; the pixels of row r and column c are all 30 r + c."""
    parts = {f"{part}_{key}": value for part in ("pixelcnn", "transformer", "reals")
             for key, value in (("layers", 3), ("channels", 32), ("steps", 200), ("learning_rate", 1e-3))}  # fmt: skip
    gain = {"nats": -0.5, "bits": -0.7, "level_bits": 4.25}
    content = {
        "experiment": NAME, "run": run, "variant": run.rsplit("-", 1)[0], "seed": 0, "reason": None,
        "chosen": "transformer",
        "provenance": {**parts, "batch_size": 64, "hardware": "2 x CPU", "precision": "bfloat16", "torch": "2.0",
                       "code": "c" * 12, "data": "d" * 12, "weights": f"{sum(run.encode()):012x}", "classes": 3},
        "codes": {"order0": [5.0, 1.0], "pixelcnn": [3.75, 0.5], "transformer": [3.5, 0.5]},
        "reals": {"per_image": 64, "levels": 256, "order0": gain | {"level_bits": 6.5},
                  "gaussian_per_code": gain | {"level_bits": 5.5}, "network": gain} if gains else None,
        "rate": {"bpp_nominal": 1.0625, "bpp_order0": 0.7, "bpp_prior": 0.43, "bits_per_dimension": 0.1433},
        "bitstream": {"images": 16, "bytes": 900, "bpp": 0.44, "bpp_prior": 0.4375},
        "samples": {"count": 250, "sliced_wasserstein": dict(zip(SETS, (0.1, 0.3, 0.05, 0.04, 0.02), strict=True)),
                    "code_pairs": {"prior": 0.2, "naive": 0.7, "training": 0.1, "floor": 0.1},
                    "fid": None if missing else dict(zip(SETS, (90.0, 190.0, 60.0, 40.0, 5.0), strict=True)),
                    "fid_missing": missing, "nearest_training_mse": {"prior": 0.04, "reconstructions": 0.03},
                    "nearest_training_codes": {"prior": 0.4, "reconstructions": 0.5}},
    }  # fmt: skip
    folder = root / "results" / NAME
    (folder / f"{run}.prior.json").write_text(json.dumps(content))
    shades = np.add.outer(30 * np.arange(ROWS + 2), np.arange(COLUMNS)).astype(np.uint8)
    pixels = np.repeat(shades.repeat(32, axis=0).repeat(32, axis=1)[..., None], 3, axis=2)
    Image.fromarray(pixels).save(folder / f"{run}.prior.png")
    return content


@pytest.fixture
def root(tmp_path):
    return make_repository(tmp_path)


@pytest.mark.parametrize(
    ("rate", "pairs", "said"),
    [(0.43, 0.2, "not reproduced"), (0.8, 0.2, "reproduced"), (0.43, 0.9, "open")],
)
def test_c5_holds_a_prior_against_histograms(root, rate, pairs, said):
    assert claims_latents.priors([load_results(NAME, root)]).said == "open"
    content = write_prior(root, "projected-0", gains=True)
    content["rate"]["bpp_prior"], content["samples"]["code_pairs"]["prior"] = rate, pairs
    (root / "results" / NAME / "projected-0.prior.json").write_text(json.dumps(content))
    write_prior(root, "vq-0", gains=False)  # has nothing continuous, so it does not count
    verdict = claims_latents.priors([load_results(NAME, root)])
    assert verdict.said == said
    assert verdict.runs == ((NAME, "projected-0"),)


def test_without_priors_the_report_has_no_section_of_them(root):
    assert prior_exhibits(load_results(NAME, root)) == []


def test_each_prior_has_its_bits_its_distances_and_its_pictures(root):
    write_prior(root, "vq-0", gains=False)
    write_prior(root, "projected-0", gains=True)
    write_prior(root, "identity-0", gains=False)
    path = root / "results" / NAME / "identity-0.prior.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reason": "it has no codes"}))
    bits, distances, *pictures = prior_exhibits(load_results(NAME, root))
    shown = bits.content.shown.set_index("run")
    assert list(shown.index) == ["`vq-0`", "`projected-0`"]
    assert shown.loc["`projected-0`", ["order 0", "pixelcnn", "transformer"]].tolist() == ["6.000", "4.250", "4.000"]
    assert shown.loc["`projected-0`", ["order 0, gain", "per code, gain", "network, gain"]].tolist() == [
        "6.500", "5.500", "4.250"]  # fmt: skip
    assert shown.loc["`vq-0`", "network, gain"] == "–"
    assert shown.loc["`vq-0`", "bpp"] == "0.4300"
    assert bits.content.values.set_index("run").loc["vq-0", "stream / likelihood"] == pytest.approx(0.44 / 0.4375)
    assert "No prior (it has no codes): identity-0." in bits.caption
    assert "4.81 bits per code" in bits.caption
    assert "FID needs weights." in distances.caption
    shown = distances.content.shown.set_index("run")
    assert list(shown.index) == ["`vq-0`", "`projected-0`"]
    assert shown.loc["`vq-0`", ["pixels, samples", "code pairs, no prior"]].tolist() == ["0.1000", "0.7000"]
    assert not [column for column in shown if column.startswith("FID") or set(shown[column]) == {"–"}]
    assert [picture.name for picture in pictures] == ["prior_samples_vq_0", "prior_samples_projected_0"]
    assert "a class per column" in pictures[0].caption


def test_a_variant_has_one_picture_that_of_its_first_run(root):
    add_runs(root, "projected", range(1, 3))
    for run in ("projected-0", "projected-1", "projected-2", "vq-0"):
        write_prior(root, run, gains=run != "vq-0")
    _, distances, *pictures = prior_exhibits(load_results(NAME, root))
    assert len(distances.content.shown) == 4
    assert [picture.heading for picture in pictures] == ["New images: vq-0", "New images: projected-1"]


def test_fid_is_in_the_table_where_it_was_computed(root):
    write_prior(root, "vq-0", gains=False, missing=None)
    _, distances, _ = prior_exhibits(load_results(NAME, root))
    fid = [column for column in distances.content.shown if column.startswith("FID")]
    assert distances.content.shown.loc[0, fid].tolist() == ["90.00", "190.0", "60.00", "40.00", "5.000"]
    assert "FID needs" not in distances.caption


def test_a_picture_of_another_form_is_refused_in_one_line(root):
    write_prior(root, "vq-0", gains=False)
    Image.new("RGB", (32, 32)).save(root / "results" / NAME / "vq-0.prior.png")
    with pytest.raises(ReportError, match=r"vq-0\.prior\.png is 32 x 32 pixels; it must be 6 rows of 8 thumbnails"):
        prior_exhibits(load_results(NAME, root))


def test_the_picture_shows_every_thumbnail_at_its_place():
    tiles = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8, 1, 1, 1) * np.ones((1, 1, 32, 32, 3), np.uint8)
    figure = mosaic(tiles, ["a", "", "", "", "b", "c"])
    shown = figure.axes[0].images[0].get_array()
    flat = [int(value) for value in dict.fromkeys(shown[..., 0].ravel().tolist()) if value < 255]
    assert flat == list(range(48))
    assert image_bytes(figure, "png") == image_bytes(mosaic(tiles, ["a", "", "", "", "b", "c"]), "png")


def test_the_report_has_the_section(root):
    write_prior(root, "projected-0", gains=True)
    results = load_results(NAME, root)
    text = report_markdown(results, all_exhibits(results))
    assert "## What a prior costs in bits" in text
    assert "## How far samples are from images" in text
    assert "## New images: projected-0" in text
    assert "](figures/prior_samples_projected_0.png)" in text
