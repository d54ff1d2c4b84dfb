"""Tables and figures of rates and gains: like stands beside like, and copies of vq are one point."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import SMALL, SWEEP, make_study

from vqlib.bjontegaard import bd_rate
from vqlib.reporting import question_exhibits, rate_exhibits
from vqlib.reporting.exhibit import ALL
from vqlib.reporting.results import Results, load_results

RUNS = {"vq": 1, "projected": 1, "frequency_502": 1, "frequency_412": 1, "frequency_8": 1, "gain_shape_2": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_study(
        tmp_path_factory.mktemp("rates") / "study", {"vq": 1, "projected": 1, "vq_ema": 1, "vq_large": 1}, RUNS
    )


@pytest.fixture(scope="module")
def results(root) -> Results:
    return load_results(SWEEP, root)


def with_prior(results: Results) -> Results:
    rate = {"bpp_prior": 0.45, "bpp_codes_prior": 0.07}
    return dataclasses.replace(results, priors={"projected-0": {"rate": rate, "reason": None}})


def test_the_rates_of_codes_and_of_all_stand_in_columns_of_their_own(results):
    table = rate_exhibits.rates(with_prior(results)).content
    shown = table.shown.set_index("model")
    assert list(shown.columns) == [
        "seeds", "codes, nominal", "codes, entropy", "codes, cross-entropy", "codes, bitstream", "codes, prior",
        "all, bitstream at 8 bits", "all, prior", "continuous"]  # fmt: skip
    assert shown.loc["`projected`", ["codes, prior", "all, prior"]].tolist() == ["0.07000", "0.4500"]
    points = results.evaluations["projected-0"]["rate"]["precisions"]
    values = table.values.set_index("model")["rate.bpp_bitstream_8bit"]
    assert values["projected"] == next(point["bpp_bitstream"] for point in points if point["bits"] == 8)
    assert values["vq"] == results.evaluations["vq-0"]["rate"]["bpp_bitstream"]


def test_copies_of_vq_are_one_point_and_no_row(results):
    figure = rate_exhibits.rate_distortion(results)
    names = [text.get_text() for text in figure.content.axes[-1].texts]
    assert "frequency_412 to 502 (= vq)" in names and not {"frequency_412", "frequency_502"} & set(names)
    precisions = rate_exhibits.precisions(results)
    assert set(precisions.content.values["model"]) == {"projected", "frequency_8"}
    assert "Left out, since nothing is continuous in them: `frequency_502`, `frequency_412`." in precisions.caption


def test_rates_are_held_against_one_kind_of_codebook_in_two_sizes(root):
    results = load_results(SMALL, root)
    against = "against vq_ema, vq_large"
    apart = rate_exhibits.bd_rates(results).content
    assert apart.shown.set_index("curve").loc["`projected`", against] == "no PSNR in common"

    evaluations = copy.deepcopy(results.evaluations)
    for point in evaluations["projected-0"]["rate"]["precisions"]:
        point["psnr"] += 2
    results = dataclasses.replace(results, evaluations=evaluations)
    points = rate_exhibits.rate_points(results)
    anchor, curve = (points[points["run"].isin(runs)][["bpp", "psnr"]].to_numpy().tolist()
                     for runs in (["vq_ema-0", "vq_large-0"], ["projected-0"]))  # fmt: skip
    percent, _ = bd_rate(anchor, curve)
    exhibit = rate_exhibits.bd_rates(results)
    assert exhibit.content.values.set_index("curve").loc["projected", against] == pytest.approx(percent)
    assert exhibit.content.shown.set_index("curve").loc["`projected`", against] == f"{percent:+,.0f} %"
    assert "are one kind of codebook" in exhibit.caption and list(exhibit.content.values["curve"]) == ["projected"]


def test_levels_of_gains_stand_by_their_values(results):
    assert len(question_exhibits.gains(results).content.axes) == 1  # of projected alone: no values, no panel
    evaluations = copy.deepcopy(results.evaluations)
    symbol = evaluations["gain_shape_2-0"]["codes"][1]
    symbol |= {"values": [0.5, -2.0, 2.0, -0.5], "levels": [0.1, 0.2, 0.3, 0.4]}
    exhibit = question_exhibits.gains(dataclasses.replace(results, evaluations=evaluations))
    _, ax = exhibit.content.axes
    assert ax.get_ylabel() == "gain_shape_2"
    line = next(line for line in ax.lines if line.get_linestyle() == "None")
    np.testing.assert_allclose(line.get_xdata(), [-2, -0.5, 0.5, 2])
    np.testing.assert_allclose(line.get_ydata(), [0.8, 1.6, 0.4, 1.2])
    assert "one of the b bits of a gain is the sign" in exhibit.caption
    assert "gain_shape_2-0" in exhibit.provenance and "vq-0" not in exhibit.provenance


def test_only_the_first_run_of_a_model_is_named_beside_its_gains(tmp_path):
    made = make_study(tmp_path / "study", {"vq": 1}, {"vq": 1, "projected": 3})
    exhibit = question_exhibits.gains(load_results(SWEEP, made))
    assert "projected-0 " in exhibit.provenance and "projected-0.." not in exhibit.provenance


def test_a_figure_against_s_needs_three_values_at_which_models_differ(tmp_path):
    few = load_results(SWEEP, make_study(tmp_path / "few", {"vq": 1}, {"vq": 1, "frequency_502": 1, "frequency_8": 1}))
    assert question_exhibits.frequency(few) is None  # S of 512 and 8; at 502 it is vq
    runs = {"vq": 1, "frequency_8": 1, "frequency_16": 1}
    exhibit = question_exhibits.frequency(load_results(SWEEP, make_study(tmp_path / "more", {"vq": 1}, runs)))
    assert "frequency_16" in exhibit.provenance or exhibit.provenance == ALL


def test_the_scatter_of_seeds_stands_beside_the_psnr_at_every_precision(tmp_path):
    results = load_results(SWEEP, make_study(tmp_path / "study", {"vq": 1}, {"vq": 1, "projected": 3}))
    table = rate_exhibits.precisions(results).content
    at_4 = results.precisions("projected").query("bits == 4")["psnr"]
    half = 4.3027 * at_4.std() / 3**0.5  # t of 2 degrees of freedom
    row = table.values.set_index("model").loc["projected"]
    assert row["psnr_4"] == pytest.approx(at_4.mean()) and row["psnr_4_interval"] == pytest.approx(half, rel=1e-4)
    assert f"± {half:.2g}"[:5] in table.shown.set_index("model").loc["`projected`", "4 bits"]
