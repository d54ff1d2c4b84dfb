"""The README: its numbers are those of the committed reports, its commands and files exist."""

import re

from vqlib.params import ROOT

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


def test_every_number_in_what_we_found_stands_in_the_report():
    found = re.search(r"<!-- findings from (reports/\S+/README\.md) -->\n(.*?)<!-- end -->", README, re.DOTALL)
    report = (ROOT / found[1]).read_text()
    numbers, known = (set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text)) for text in (found[2], report))
    assert numbers
    assert numbers <= known


def test_every_file_that_it_links_to_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_it_names_every_notebook_and_the_contract_of_a_variant():
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        assert notebook.stem in README
    assert "vqlib/bottlenecks/" in README
