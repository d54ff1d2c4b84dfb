"""The README and the reports: their numbers are those of the results, what they link to exists."""

import json
import re
import shutil
from pathlib import Path

import pytest

from vqlib.params import ROOT, experiment_names, load_experiment
from vqlib.reporting.exhibits import all_exhibits
from vqlib.reporting.html import anchor
from vqlib.reporting.report import report_markdown
from vqlib.reporting.results import load_results
from vqlib.reporting.study import BLOCK, _from_reports, findings, in_two, judging_experiments, write_study

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted(p for place in ("data", "docs", "reports") for p in (ROOT / place).rglob("*.md"))]


def test_what_we_found_is_the_text_of_the_findings_with_the_numbers_of_the_results():
    first, details = in_two(findings(ROOT, judging_experiments()))
    assert BLOCK.search(README)[0].split("\n", 1)[1] == f"{first}<!-- end -->"
    assert details.startswith("## ")


REPORTS = [
    path.parent.name for path in sorted(ROOT.glob("reports/*/README.md")) if path.parent.name in experiment_names()
]


@pytest.mark.parametrize("name", REPORTS)
def test_a_committed_report_says_what_the_results_say(name):
    """Drawn again from results/, its text is the same to the byte: no number in it is another than in results/."""
    results, drawn = load_results(name), (ROOT / "reports" / name / "README.md").read_text()
    assert report_markdown(results, all_exhibits(results)) == drawn, f"draw it again: make repro EXPERIMENT={name}"


def test_the_study_says_what_the_results_say(tmp_path):
    """reports/README.md and its tables, drawn again in a copy, are the same to the byte."""
    for name in ("experiments", "results", "vqlib/bottlenecks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_study(tmp_path)
    made = sorted(path for path in (tmp_path / "reports").iterdir() if path.is_file())
    assert len(made) == 5
    other = [path.name for path in made if path.read_bytes() != (ROOT / "reports" / path.name).read_bytes()]
    assert not other, "draw them again: python -m vqlib.reporting.study"


def test_every_bitstream_is_within_two_percent_of_its_cross_entropy():
    """Of codes alone, and with continuous numbers at every precision."""
    checked = 0
    for path in ROOT.glob("results/*/*-*.json"):
        if path.name.endswith(".prior.json"):
            continue
        rate = json.loads(path.read_text())["rate"]
        for where, told in ((path.name, rate), *((f"{path.name}, {p['bits']} bits", p) for p in rate["precisions"])):
            if told["bpp_bitstream"] is None:
                continue
            assert told["bpp_bitstream"] <= 1.02 * told["bpp_cross_entropy"], where
            checked += 1
    assert checked > 50


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose):
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def test_the_readme_links_to_what_it_speaks_of():
    assert len(re.findall(r"\]\((?!https?:)([^)#]+)\)", README)) > 5


def anchors(page: Path) -> set[str]:
    return {anchor(line.lstrip("#").strip()) for line in page.read_text().splitlines() if line.startswith("#")}


def test_the_experiment_that_it_shows_is_a_whole_one(tmp_path):
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    for folder in ("experiments/mine", "vqlib/bottlenecks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "experiments" / "mine" / "params.yaml").write_text(shown)
    for name in ("vq", "mine"):
        shutil.copy(ROOT / "vqlib/bottlenecks/vq.py", tmp_path / f"vqlib/bottlenecks/{name}.py")
    (tmp_path / "params.yaml").write_text(
        "root: .\nparams: params.yaml\nexperiment: {name: sample}\nruns: {}\n"
        "variants:\n  vq: {bottleneck: vq}\n  mine: {bottleneck: mine}\n"
    )
    experiment = load_experiment("mine", tmp_path)
    assert list(experiment.runs) == ["vq-0", "mine-0"] and not experiment.judges
    assert not experiment.prior.wants(experiment.runs["mine-0"])


def test_it_names_every_notebook_and_the_contract_of_a_variant():
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        assert notebook.stem in README
    assert "](vqlib/bottlenecks/__init__.py)" in README


@pytest.mark.parametrize("name", ["tiny_imagenet_32_small", "tiny_imagenet_32_sweep"])
def test_it_says_how_many_runs_there_are_to_measure(name):
    told = re.search(rf"\| `{name}` \| (\d+) evaluations of a minute", README)
    assert int(told[1]) == len(load_experiment(name).runs)


def test_links_of_the_findings_are_right_from_reports_too():
    text = (
        "[a](reports/x/README.md#y) [b](reports/README.md#z) [c](docs/paper.md) [d](#e) [f](https://g.org) "
        "[h](params.yaml)"
    )
    assert _from_reports(text) == (
        "[a](x/README.md#y) [b](#z) [c](../docs/paper.md) [d](#e) [f](https://g.org) [h](../params.yaml)"
    )
