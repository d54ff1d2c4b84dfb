"""What the report says and shows of priors, from results as the stage writes them."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from synthetic_results import NAME, add_runs, make_repository, weights

from vqlib.errors import ReportError
from vqlib.reporting import claims_latents
from vqlib.reporting.exhibits import all_exhibits
from vqlib.reporting.prior_exhibits import COLUMNS, MEASURES, ROWS, mosaic, prior_exhibits
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
                       "code": "c" * 12, "data": "d" * 12, "weights": weights(run), "classes": 3},
        "codes": {"order0": [5.0, 1.0], "pixelcnn": [3.75, 0.5], "transformer": [3.5, 0.5]},
        "reals": {"per_image": 64, "levels": 256, "order0": gain | {"level_bits": 6.5},
                  "gaussian_per_code": gain | {"level_bits": 5.5}, "network": gain} if gains else None,
        "rate": {"bpp_label": 0.01, "bpp_codes_order0": 0.3, "bpp_codes_prior": 0.17,
                 "bpp_reals_order0": 0.4 * gains, "bpp_reals_prior": 0.25 * gains, "bpp_nominal": 1.0625,
                 "bpp_order0": 0.7, "bpp_prior": 0.43, "latent_bits_per_value": 0.1433},
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


CODES_WIN = {"bpp_prior": 0.65, "bpp_reals_prior": 0.42}


@pytest.mark.parametrize(
    ("rate", "samples", "said"),
    [
        ({}, {}, "not reproduced for `projected` at width 32, 600 steps, a tendency"),
        (CODES_WIN, {}, "reproduced for `projected` at width 32, 600 steps, a tendency"),
        ({"bpp_prior": 0.75, "bpp_codes_prior": 0.45}, {}, "open"),  # only the real numbers win
        ({}, {"code_pairs": 0.9}, "open"),
        ({}, {"sliced_wasserstein": 0.4}, "open"),
    ],
)
def test_c5_holds_a_prior_against_histograms(root, rate, samples, said):
    assert claims_latents.priors([load_results(NAME, root)]).said == "open"
    content = write_prior(root, "projected-0", gains=True)
    content["rate"] |= rate
    for measure, value in samples.items():
        content["samples"][measure]["prior"] = value
    (root / "results" / NAME / "projected-0.prior.json").write_text(json.dumps(content))
    write_prior(root, "vq-0", gains=False)  # has nothing continuous, so it does not count
    verdict = claims_latents.priors([load_results(NAME, root)])
    assert verdict.said == said
    assert verdict.runs == ((NAME, "projected-0"),)
    assert f"codes {content['rate']['bpp_codes_prior']:.3f} (0.300)" in verdict.evidence
    assert f"continuous values {content['rate']['bpp_reals_prior']:.3f} (0.400)" in verdict.evidence


def test_in_c5_the_grid_of_learning_rates_does_not_vote(root):
    write_prior(root, "projected-0", gains=True)
    losing = write_prior(root, "projected-0", gains=True)
    losing["rate"]["bpp_reals_prior"] = 0.9
    results = load_results(NAME, root)
    priors = {**results.priors, "projected-0-lr2e-3": losing}
    verdict = claims_latents.priors([dataclasses.replace(results, priors=priors)])
    assert verdict.said.startswith("not reproduced for `projected` at") and len(verdict.runs) == 1


def test_without_priors_the_report_has_no_section_of_them(root):
    assert prior_exhibits(load_results(NAME, root)) == []


def test_each_prior_has_its_bits_its_distances_and_its_pictures(root):
    write_prior(root, "vq-0", gains=False)
    write_prior(root, "projected-0", gains=True)
    write_prior(root, "identity-0", gains=False)
    path = root / "results" / NAME / "identity-0.prior.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reason": "it has no codes"}))
    rates, bits, distances, *pictures = prior_exhibits(load_results(NAME, root))
    shown = rates.content.shown.set_index("run")
    assert list(shown.index) == ["`vq-0`", "`projected-0`"]
    assert shown.loc["`projected-0`", ["all, order 0", "all", "codes, order 0", "codes", "reals, order 0", "reals"]
                     ].tolist() == ["0.7000", "0.4300", "0.3000", "0.1700", "0.4000", "0.2500"]  # fmt: skip
    assert shown.loc["`vq-0`", ["reals", "latent bits per colour value"]].tolist() == ["–", "0.1433"]
    assert rates.content.values.set_index("run").loc["vq-0", "stream / likelihood"] == pytest.approx(0.44 / 0.4375)
    assert "No prior (it has no codes): identity-0." in rates.caption and "saves nothing" not in rates.caption
    shown = bits.content.shown.set_index(["run", "of"])
    assert shown.loc[("`projected-0`", "all symbols of a position"), ["order 0", "pixelcnn", "transformer"]
                     ].tolist() == ["6.000", "4.250", "4.000"]  # fmt: skip
    assert shown.loc[("`projected-0`", "symbol 2"), "order 0"] == "1.000"
    assert shown.loc[("`projected-0`", "real number"), ["order 0", "a Gaussian per code", "network of reals"]
                     ].tolist() == ["6.500", "5.500", "4.250"]  # fmt: skip
    assert ("`vq-0`", "real number") not in shown.index
    assert "4.81 bits per code" in bits.caption
    assert "FID needs weights." in distances.caption
    by_measure = distances.content.values.set_index(["measure", "run"])
    assert by_measure.loc[(MEASURES["sliced_wasserstein"], "vq-0"), "samples"] == 0.1
    assert by_measure.loc[(MEASURES["code_pairs"], "projected-0"), "no prior"] == 0.7
    assert MEASURES["fid"] not in distances.content.groups and len(distances.content.shown) == 2 * 4
    assert max(exhibit.content.shown.shape[1] for exhibit in (rates, bits, distances)) <= 10
    assert [picture.name for picture in pictures] == ["prior_samples_vq_0", "prior_samples_projected_0"]
    assert "a class per column" in pictures[0].caption


def test_a_variant_has_one_picture_that_of_its_first_run(root):
    add_runs(root, "projected", range(1, 3))
    for run in ("projected-0", "projected-1", "projected-2", "vq-0"):
        write_prior(root, run, gains=run != "vq-0")
    rates, _, _, *pictures = prior_exhibits(load_results(NAME, root))
    assert len(rates.content.shown) == 4
    assert [picture.heading for picture in pictures] == ["New images: vq-0", "New images: projected-1"]


def test_fid_is_in_the_table_where_it_was_computed(root):
    write_prior(root, "vq-0", gains=False, missing=None)
    _, _, distances, _ = prior_exhibits(load_results(NAME, root))
    row = distances.content.groups.index(MEASURES["fid"])
    assert distances.content.shown.loc[row].tolist() == ["`vq-0`", "90.00", "190.0", "60.00", "40.00", "5.000"]
    assert "FID needs" not in distances.caption


def test_a_prior_that_saves_nothing_and_one_without_a_stream_are_named(root):
    content = write_prior(root, "vq-0", gains=False)
    content["rate"]["bpp_prior"] = 0.71
    content |= {"bitstream": None, "bitstream_missing": "at 3 of 9 places"}
    (root / "results" / NAME / "vq-0.prior.json").write_text(json.dumps(content))
    rates = prior_exhibits(load_results(NAME, root))[0]
    assert "`vq-0` has none: at 3 of 9 places." in rates.caption
    assert "A prior that saves nothing over these histograms: vq-0." in rates.caption
    assert rates.content.shown.loc[0, "stream / likelihood"] == "–"


def test_gains_and_codes_have_rows_of_their_own(root):
    write_prior(root, "gain_shape_4-0", gains=False)
    shown = prior_exhibits(load_results(NAME, root))[1].content.shown
    assert shown["of"].tolist() == ["code", "gain level (one of its bits is the sign)", "all symbols of a position"]
    assert shown["pixelcnn"].tolist() == ["3.750", "0.5000", "4.250"]


def test_classes_stand_above_their_columns_where_results_name_them(root):
    content = write_prior(root, "vq-0", gains=False)
    *_, picture = prior_exhibits(load_results(NAME, root))
    assert "results/ holds no names" in picture.caption
    content["samples"]["classes"] = ["n01443537", "n12267677", *(f"class {place}" for place in range(2, COLUMNS))]
    (root / "results" / NAME / "vq-0.prior.json").write_text(json.dumps(content))
    *_, picture = prior_exhibits(load_results(NAME, root))
    words = [text.get_text() for text in picture.content.axes[0].texts]
    assert words[-COLUMNS:] == ["goldfish", "acorn", *content["samples"]["classes"][2:]]
    assert "no names" not in picture.caption


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
