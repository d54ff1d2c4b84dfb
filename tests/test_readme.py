"""The README: its numbers are those of the committed reports, its commands and files exist."""

import re

import pytest

from vqlib.params import ROOT, experiment_names
from vqlib.reporting.exhibits import all_exhibits
from vqlib.reporting.report import report_markdown
from vqlib.reporting.results import load_results
from vqlib.reporting.study import BLOCK, FINDINGS, findings, judging_experiments

README = (ROOT / "README.md").read_text()


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


def test_every_row_of_results_stands_in_the_report_that_it_links_to():
    block = re.search(r"<!-- from (reports/\S+/README\.md) -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert block, "README.md shows a table between <!-- from reports/... --> and <!-- end -->"
    report = (ROOT / block[1]).read_text()
    rows = table_rows(block[2])
    assert rows
    assert set(rows) <= set(table_rows(report))


def test_what_we_found_holds_only_numbers_of_the_results():
    """Either the text of results/FINDINGS.md, word for word, or one whose every number a report has too."""
    if (ROOT / FINDINGS).is_file():
        assert BLOCK.search(README)[0].split("\n", 1)[1] == f"{findings(ROOT, judging_experiments())}<!-- end -->"
        return
    found = re.search(r"<!-- findings from (reports/\S+/README\.md) -->\n(.*?)<!-- end -->", README, re.DOTALL)
    report = (ROOT / found[1]).read_text()
    numbers, known = (set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text)) for text in (found[2], report))
    assert numbers
    assert numbers <= known


@pytest.mark.parametrize("path", sorted(ROOT.glob("reports/*/README.md")), ids=lambda path: path.parent.name)
def test_a_committed_report_says_what_the_results_say(path):
    """Drawn again from results/, its text is the same to the byte: no number in it is another than in results/."""
    if path.parent.name not in experiment_names():
        return  # not drawn from results/<experiment>
    results = load_results(path.parent.name)
    assert report_markdown(results, all_exhibits(results)) == path.read_text(), "draw it again: make repro EXPERIMENT="


def test_every_file_that_it_links_to_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_it_names_every_notebook_and_the_contract_of_a_variant():
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        assert notebook.stem in README
    assert "vqlib/bottlenecks/" in README
