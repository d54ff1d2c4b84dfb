"""Verdicts follow from results: the same rule says yes, no or open when the numbers change."""

import copy
import dataclasses
import re
from pathlib import Path

import pytest
from synthetic_study import SMALL, SWEEP, make_study

from vqlib.params import ROOT
from vqlib.reporting import paper
from vqlib.reporting.claims import CLAIMS, DISAGREEMENTS, judge_all
from vqlib.reporting.exhibit import shortened
from vqlib.reporting.judging import Verdict
from vqlib.reporting.report import report_markdown
from vqlib.reporting.results import Results, load_results, tables
from vqlib.reporting.study_exhibits import learning_rates
from vqlib.reporting.verdicts import verdict_table

ALL = [claim.name for claim in (*CLAIMS, *DISAGREEMENTS)]
SMALL_RUNS = {"vq": 3, "projected": 5, "projected_rows": 3, "vq_ema": 3, "identity": 1}
SWEEP_RUNS = {name: 3 for name in ("vq", "projected", "projected_detached", "projected_guard", "projected_unit",
                                   "projected_rows", "projected_rows_released")} | {
    f"frequency_{s}": 1 for s in (502, 412, 312, 16, 8, 4)} | {"frequency_released_312": 1}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_study(tmp_path_factory.mktemp("claims") / "study", SMALL_RUNS, SWEEP_RUNS)


@pytest.fixture(scope="module")
def loaded(root) -> dict[str, Results]:
    return {name: load_results(name, root) for name in (SMALL, SWEEP)}


class Study:
    """Results of both experiments, to be changed run by run and judged."""

    def __init__(self, loaded: dict[str, Results]):
        self.loaded = loaded
        self.evaluations = {name: copy.deepcopy(results.evaluations) for name, results in loaded.items()}
        self.history = {name: results.history.copy() for name, results in loaded.items()}

    def results(self, name: str) -> Results:
        base, evaluations, history = self.loaded[name], self.evaluations[name], self.history[name]
        frames = tables(base.experiment, evaluations, history)
        return dataclasses.replace(base, evaluations=evaluations, history=history, **frames)

    def verdict(self, name: str) -> Verdict:
        """On one claim: judging all of them takes a second."""
        claim = [one for one in (*CLAIMS, *DISAGREEMENTS) if one.name == name]
        return judge_all([self.results(one) for one in (SMALL, SWEEP)], claim)[name]

    def of(self, experiment: str, variant: str) -> list[dict]:
        return [one for one in self.evaluations[experiment].values() if one["variant"] == variant]

    def change(self, experiment: str, variant: str, **sections: dict) -> None:
        """Set keys of every run of a variant."""
        for content in self.of(experiment, variant):
            for section, values in sections.items():
                content.setdefault(section, {}).update(values)

    def errors(self, experiment: str, **mse: list[float]) -> None:
        """Give the seeds of variants these test errors, the same at every precision of their gains."""
        for variant, values in mse.items():
            for seed, value in enumerate(values):
                content = self.evaluations[experiment][f"{variant}-{seed}"]
                content["test"]["mse"] = value
                for point in content["rate"]["precisions"]:
                    point["mse"] = value

    def redraw(self, experiment: str, run: str, **columns) -> None:
        """Change columns of a run's training rows by functions of the table."""
        table = self.history[experiment]
        train = (table["run"] == run) & (table["split"] == "train")
        for column, value in columns.items():
            table.loc[train, column] = value(table[train])


@pytest.fixture
def study(loaded) -> Study:
    return Study(loaded)


@pytest.mark.parametrize("part", [(SMALL,), (SWEEP,), (SMALL, SWEEP), ()])
def test_every_claim_has_a_verdict_whatever_the_experiment_has(root, loaded, part):
    found = judge_all([loaded[name] for name in part])
    assert list(found) == ALL
    for verdict in found.values():
        assert verdict.said and verdict.evidence.endswith(".")
        assert "nan" not in verdict.evidence
        if verdict.said == "open":
            assert re.search(r"[Nn]eeds", verdict.evidence)
        assert len(set(verdict.runs)) == len(verdict.runs)
        for experiment, run in verdict.runs:
            assert (root / "results" / experiment / f"{run}.json").is_file()


def test_all_of_the_papers_claims_and_nine_disagreements_are_there():
    assert {name.split(",")[0] for name in ALL} == {*paper.CLAIMS, *map(str, range(1, 10))}


def test_photographs_judge_nothing(loaded):
    experiment = loaded[SMALL].experiment
    photos = experiment.model_copy(update={"data": experiment.data.model_copy(update={"source": "photos"})})
    assert judge_all([dataclasses.replace(loaded[SMALL], experiment=photos)]) == judge_all([])


def test_c1_follows_the_errors(study):
    vq = [0.040, 0.041, 0.039]
    for projected, said in (([0.036] * 3, "not reproduced"), ([0.0200, 0.0201, 0.0199], "open"),
                            ([0.010, 0.0101, 0.0099], "reproduced")):  # fmt: skip
        study.errors(SMALL, vq=vq, projected=[*projected, *projected[:2]], vq_ema=[0.030, 0.031, 0.029])
        verdict = study.verdict("C1")
        assert verdict.said == said, verdict.evidence
        assert verdict.numbers["ratio"] == pytest.approx(sum([*projected, *projected[:2]]) / 5 / 0.040, rel=0.01)
    study.errors(SMALL, vq_ema=[0.015, 0.0151, 0.0149])
    verdict = study.verdict("C1")
    factor = (0.5625 + 2 * 64 / 1024) / 0.5625  # 2-bit gains: here the error does not depend on the precision
    assert verdict.said == f"true only at {factor:.3g} times the rate"
    assert ("tiny_imagenet_32_small", "vq_ema-2") in verdict.runs


def test_c1_takes_the_fewest_bits_that_cost_one_per_cent(study):
    study.errors(SMALL, vq=[0.040, 0.041, 0.039], projected=[0.010, 0.0101, 0.0099, 0.01, 0.01])
    for content in study.of(SMALL, "projected"):
        for point in content["rate"]["precisions"]:
            point["mse"] *= {2: 1.3, 4: 1.02, 6: 1.005}.get(point["bits"], 1)
    assert study.verdict("C1").numbers["bits"] == 6


def test_c1_on_the_released_axis_waits_for_the_papers_width(study):
    assert study.verdict("C1, released axis").said == "open"
    for mse, said in ((0.010, "true only at 8.11 times the rate"), (0.019, "open"), (0.036, "not reproduced")):
        for variant in ("vq", "projected_rows"):
            study.change(SWEEP, variant, provenance={"width": 256})
        study.errors(SWEEP, vq=[0.04] * 3, projected_rows=[mse])
        for seed in (1, 2):
            study.evaluations[SWEEP].pop(f"projected_rows-{seed}", None)
        assert study.verdict("C1, released axis").said == said


def test_the_share_that_a_healthy_codebook_gives_for_free(study):
    study.errors(SMALL, vq=[0.040] * 3, vq_ema=[0.030] * 3)
    verdict = study.verdict("C1, for free")
    assert verdict.said == "50 % of the half"
    assert verdict.numbers["share"] == pytest.approx(0.5)


def test_c2_counts_late_peaks(study):
    verdict = study.verdict("C2")
    assert (verdict.numbers["hits"], verdict.numbers["of"]) == (2, 5)  # seeds 1 and 3
    assert verdict.numbers["other_of"] == 6  # vq and vq_ema, three each: no identity, no projections
    assert verdict.said == "open" and "39,100 steps" in verdict.evidence
    for seed in (0, 2, 4):
        study.redraw(SMALL, f"projected-{seed}",
               recon_loss_max=lambda train: train["recon_loss_max"].where(train["step"] != 6000, 1.0))  # fmt: skip
    verdict = study.verdict("C2")
    assert verdict.said == "reproduced" and verdict.numbers["p"] < 0.05
    for variant in SMALL_RUNS:
        study.change(SMALL, variant, provenance={"steps": 39_100})
    for seed in range(5):
        study.redraw(SMALL, f"projected-{seed}", recon_loss_max=lambda train: 1.2 * train["recon_loss"])
    assert study.verdict("C2").said == "not reproduced"


def test_the_cause_of_c2_is_tested_by_intervention(study):
    def burst(train):
        return train["grad_norm"].where(train["step"] != 2000, 30 * train["grad_norm"])

    calm = ["projected_detached", "projected_guard", "projected_unit"]
    assert study.verdict("C2, its cause").said == "open"  # one of three seeds of the original bursts
    for seed in range(3):
        study.redraw(SWEEP, f"projected-{seed}", grad_norm_max=burst)
    assert study.verdict("C2, its cause").said == "confirmed"
    for seed in range(3):
        study.redraw(SWEEP, f"{calm[1]}-{seed}", grad_norm_max=burst)
    assert study.verdict("C2, its cause").said == "open"
    for seed in range(3):
        study.redraw(SWEEP, f"{calm[0]}-{seed}", grad_norm_max=burst)
    assert study.verdict("C2, its cause").said == "not the cause"


def test_c3_asks_for_both_measures(study):
    for psnr, ssim, said in (
        (29.0, 0.96, "reproduced"),
        (29.0, 0.94, "not reproduced"),
        (27.0, 0.96, "not reproduced"),
    ):
        study.change(SMALL, "projected", test={"psnr": psnr, "ssim": ssim})
        assert study.verdict("C3").said == said


def test_c4_says_so_where_the_mask_never_fires(study):
    verdict = study.verdict("C4")
    assert verdict.said == "true only of the paper's S"
    assert "S = 502, 412 under 0.1 %" in verdict.evidence
    study.errors(SWEEP, frequency_412=[0.02])
    assert study.verdict("C4").said == "not reproduced"
    base = study.results(SWEEP).mean("vq", "test.mse")
    study.errors(SWEEP, **{f"frequency_{s}": [base * (1 + 0.01 * (s % 3))] for s in (502, 412, 312, 16, 8, 4)})
    assert study.verdict("C4").said == "reproduced"


@pytest.mark.parametrize(
    ("name", "variant", "sections", "said"),
    [
        ("1, axis", "projected_rows", {"rate": {"bpp_32bit": 2.5625}}, "refuted"),
        ("3, rate", "projected", {"rate": {"bpp_8bit": 1.1}}, "refuted"),
        ("4, frequency table", "frequency_released_312", {"rate": {"continuous_fraction": 0.0017}}, "confirmed"),
        ("5, evaluation", "vq", {"released_protocol": {"images": 9984, "mse": 1.0}}, "confirmed"),
    ],
)
def test_disagreements_follow_the_results(study, name, variant, sections, said):
    for experiment in (SMALL, SWEEP):
        study.change(experiment, variant, **sections)
    assert study.verdict(name).said.split(",")[0] == said


def test_two_disagreements_are_settled_by_arithmetic():
    found = judge_all([])
    assert found["2, data"].said == found["8, factor"].said == "confirmed"


def test_norms_are_those_of_the_log(study):
    verdict = study.verdict("7, norms")
    assert verdict.said == "confirmed"
    assert verdict.numbers["position"] == pytest.approx(0.018, abs=5e-4)
    assert verdict.numbers["row"] == pytest.approx(0.003, abs=5e-4)
    for run in study.evaluations[SMALL]:
        study.redraw(SMALL, run, smallest_code_norm=lambda train: 0.1)
    assert study.verdict("7, norms").said == "refuted"


def test_the_table_holds_every_verdict_and_refuses_to_miss_one(study):
    found = judge_all([study.results(SMALL)])
    table = verdict_table(CLAIMS, found, lambda *_: None)
    assert {cell.strip("*") for cell in table.shown["claim"]} == {claim.name for claim in CLAIMS}
    assert dict(zip(table.values["claim"], table.values["verdict"], strict=True)) == {
        claim.name: found[claim.name].said for claim in CLAIMS
    }
    still_open = [said == "open" for said in table.values["verdict"]]
    assert 0 < sum(still_open) < len(CLAIMS) and still_open == sorted(still_open)
    del found["C3"]
    with pytest.raises(KeyError):
        verdict_table(CLAIMS, found, lambda *_: None)


def test_what_was_found_stands_before_the_verdicts(study):
    titles = re.findall(r"^## (.*)", report_markdown(study.results(SMALL), {}), re.MULTILINE)
    assert titles[:2] == ["Findings", "What became of each claim"]


def test_the_table_of_learning_rates_says_which_one_the_rest_uses(study):
    exhibit = learning_rates(study.results(SWEEP))
    row = exhibit.content.shown.set_index("model").loc["`vq`"]
    assert list(row.index) == ["0.0005", "0.001", "0.002", "0.004", "least at"]
    assert row[row["least at"].split()[0]].startswith("**")
    assert "Every other figure and table has the runs at 0.001, of `vq_ema` at " in exhibit.caption
    assert learning_rates(study.results(SMALL)) is None


def test_consecutive_seeds_are_told_as_one():
    assert shortened(["vq-0", "vq-1", "vq-2", "a-0", "a-2", "vq-0-lr2e-3"]) == ["vq-0..2", "a-0", "a-2", "vq-0-lr2e-3"]


def test_the_rules_were_logged_with_a_date():
    log = (ROOT / "LOG.md").read_text()
    entry = log[log.index("## 2026-11-24 The rules by which") :]
    for name in (*paper.CLAIMS, *(f"{place}, *" for place in range(1, 10))):
        assert name in entry, name
