from dataclasses import replace

import numpy as np
import pytest
from synthetic_results import NAME, add_runs, evaluation, make_repository

from vqlib.errors import ReportError
from vqlib.reporting.claims import judge_all
from vqlib.reporting.exhibits import all_exhibits
from vqlib.reporting.findings import fill_in
from vqlib.reporting.report import report_markdown
from vqlib.reporting.results import Results, load_results
from vqlib.reporting.tables import number


@pytest.fixture
def root(tmp_path):
    return make_repository(tmp_path / "copy")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    return load_results(NAME, make_repository(tmp_path_factory.mktemp("findings") / "copy"))


def test_findings_take_their_numbers_from_the_results(root):
    add_runs(root, "vq", range(1, 2))
    (root / "results" / NAME / "FINDINGS.md").write_text(
        "*Template of [the report](x).*\n\nRatio {{ vq-0.test.mse / projected-0.test.mse }}, ok."
    )
    results = load_results(NAME, root)
    text = report_markdown(results, all_exhibits(results))
    ratio = evaluation(root, "vq-0")["test"]["mse"] / evaluation(root, "projected-0")["test"]["mse"]
    assert f"## Findings\n\nRatio {number(ratio)}, ok.\n" in text and "Template" not in text
    assert "judges nothing" not in text

    seeds = [evaluation(root, f"vq-{seed}")["test"]["psnr"] for seed in (0, 1)]
    for written, expected in {
        "{{vq-1.test.psnr}}": number(seeds[1]),
        "{{ vq.test.psnr }} dB": f"{number(float(np.mean(seeds)))} dB",
        "{{ vq-1.test.psnr - vq-0.test.psnr }}": number(seeds[1] - seeds[0]),
        "{{ 2 * vq-1.test.psnr }}": number(2 * seeds[1]),
        "{{ vq.test.psnr / 3 | 2 }}": number(float(np.mean(seeds)) / 3, digits=2),
        "{{ vq.seeds }}": "2",
        "{{ vq.learning_rate }}": "1e-3",
        "{{ vq.test.psnr.interval | 3 }}": number(12.7062 * abs(seeds[1] - seeds[0]) / 2, digits=3),
        "{{ vq.over.projected.value }}": number(float(results.ratio("vq", "projected").value)),
        "{{ vq-0.provenance.hardware }}": "2 x <i>Fast</i> CPU",
        "{{ vq-0.test.images }}": "100",
        "{{ paper.projected.test.reconstruction / paper.vq.test.reconstruction }}": "0.2932",
        "{{ C2.verdict }}": "open",
        "{{ 8,_factor.factor | 2 }}": "3.4",
        "{{ C1,_for_free.verdict }}": judge_all([results])["C1, for free"].said,
        "no placeholder": "no placeholder",
    }.items():
        assert fill_in(written, results, "FINDINGS.md") == expected


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("{{ vq-7.test.mse }}", "no 'vq-7'; did you mean 'vq-0'"),
        ("{{ vq.over.projected.low }}", "three seeds of both"),
        ("{{ vq.over.projected.mean }}", "must end in value"),
        ("{{ projected.at_5_bits.psnr }}", "which has none"),
        ("{{ vq-0.test.msi }}", "no 'msi'; did you mean 'mse'"),
        ("{{ vq-0.test.mse.x }}", "vq-0.test.mse holds one value"),
        ("{{ vq-0.test }}", "vq-0.test is not one value"),
        ("{{ identity-0.test.perplexity }}", "identity-0.test.perplexity is null"),
        ("{{ identity.test.perplexity }}", "identity.test.perplexity is not a number"),
        ("{{ vq.test.psnr.interval }}", "needs several seeds of vq"),
        ("{{ vq.provenance.hardware }}", "is not a number of the variant vq"),
        ("{{ vq-0.test.mse % 2 }}", "must be one value, or two around one of / * + -"),
        ("{{ vq-0.test.mse / 0 }}", "divides by zero"),
        ("{{ 1e400 }}", "is not finite"),
        ("{{ C2.verdikt }}", "C2.verdikt is not a number of that verdict; did you mean 'verdict'"),
        ("{{ vq-0.run + 1 }}", "calculates with text"),
        ("{{ vq-0.test.mse | 12 }}", "must have a number of digits after the bar: 1 2 3 4 5 6"),
        ("{{ vq-0.test.mse | }}", "must have a number of digits after the bar"),
        ("{{ }}", "must be one value"),
    ],
)
def test_a_placeholder_that_means_nothing_is_one_clear_line(results, written, named):
    with pytest.raises(ReportError) as error:
        fill_in(written, results, "FINDINGS.md")
    assert named in str(error.value) and "FINDINGS.md: " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_placeholder_of_a_list_is_one_clear_line(results):
    listed = {**results.evaluations["vq-0"], "codes": [{"shares": [0.5]}]}
    with pytest.raises(ReportError, match=r"vq-0\.codes is not one value in the results"):
        fill_in("{{ vq-0.codes }}", replace(results, evaluations={"vq-0": listed}), "FINDINGS.md")
