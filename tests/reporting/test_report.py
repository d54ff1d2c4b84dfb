"""On synthetic results of the repository's own default experiment."""

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic_results import NAME, add_runs, evaluation, make_repository, write_results

from vqlib.errors import ReportError
from vqlib.params import ROOT, load_experiment
from vqlib.reporting import paper
from vqlib.reporting.exhibit import ALL
from vqlib.reporting.exhibits import FOR_THE_FILE, all_exhibits
from vqlib.reporting.html import to_html
from vqlib.reporting.report import report_markdown, single_values, write_report
from vqlib.reporting.results import load_results
from vqlib.reporting.tables import Table, number


@pytest.fixture
def root(tmp_path) -> Path:
    return make_repository(tmp_path / "copy")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A repository whose report has been written. Not to be changed."""
    root = make_repository(tmp_path_factory.mktemp("made") / "copy")
    written(root)
    return root


def written(root: Path) -> Path:
    results = load_results(NAME, root)
    return write_report(results, all_exhibits(results))


def readme(root: Path) -> str:
    results = load_results(NAME, root)
    return report_markdown(results, all_exhibits(results))


def first_table(text: str) -> dict[str, dict[str, str]]:
    """Rows of the first table of a report by model."""
    lines = [line for line in text.split("\n## ")[2].splitlines() if line[:1] == "|"]
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): dict(zip(head, row, strict=True)) for row in body}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_number_of_the_table_is_that_of_the_run(made):
    root, folder = made, made / "reports" / NAME
    rows = first_table((folder / "README.md").read_text())
    with open(folder / "tables" / "models.csv") as file:
        values = {row["model"]: row for row in csv.DictReader(file)}
    base = evaluation(root, "vq-0")["test"]["mse"]
    runs = load_experiment(NAME, root).runs
    assert set(rows) == set(values) == {run.variant.name for run in runs.values()}
    for run in runs:
        one, row, value = evaluation(root, run), rows[run.split("-")[0]], values[run.split("-")[0]]
        for title, section, key in (
            ("MSE", "test", "mse"), ("PSNR", "test", "psnr"), ("SSIM", "test", "ssim"), ("bpp", "rate", "bpp_32bit"),
            ("MSE at 8 bits", "test", "mse_8bit"),
            ("bpp at 8 bits", "rate", "bpp_8bit"),
            ("perplexity", "test", "perplexity"), ("codes used", "test", "codebook_usage"),
        ):  # fmt: skip
            expected = one[section][key]
            assert (title in row) is (title not in FOR_THE_FILE)
            if expected is None:
                assert row.get(title, "–") == "–" and value[f"{section}.{key}"] == ""
            else:
                assert float(row.get(title, expected)) == pytest.approx(expected, rel=5e-4)
                assert float(value[f"{section}.{key}"]) == pytest.approx(expected, rel=5e-4)
        assert float(row["MSE / vq"]) == pytest.approx(one["test"]["mse"] / base, rel=5e-4)
    assert rows["projected"]["paper's MSE / vq"] == "0.29 ± 0.02"
    assert rows["identity"]["paper's MSE / vq"] == "–"


def test_several_seeds_become_a_mean_with_its_interval(root):
    add_runs(root, "vq", range(1, 3))
    errors = [evaluation(root, f"vq-{seed}")["test"]["mse"] for seed in range(3)]
    half = 4.3027 * np.std(errors, ddof=1) / 3**0.5  # Student's t, 2 degrees of freedom
    cell = first_table(readme(root))["vq"]["MSE"]
    mean, interval = (float(part) for part in cell.split(" ± "))
    assert mean == pytest.approx(np.mean(errors), rel=5e-4)
    assert interval == pytest.approx(half, rel=0.05)


def test_a_new_variant_appears_everywhere(root):
    add_runs(root, "brand_new", range(1), new=True)
    shown = all_exhibits(load_results(NAME, root))
    assert "brand_new" in first_table(readme(root))
    assert "brand_new,1," in shown["Table 1"].content.csv()
    assert r"\texttt{brand\_new}" in shown["Table 1"].content.latex()
    for label, exhibit in shown.items():
        if exhibit.kind == "Figure" and exhibit.name not in ("projected_training", "stability", "controls"):
            text = " ".join(found.get_text() for found in exhibit.content.findobj(lambda one: hasattr(one, "get_text")))
            assert "brand_new" in text, label


def test_left_out_runs_are_named_and_no_number_is_made_up(root):
    for suffix in (".json", ".csv", ".png"):
        (root / "results" / NAME / f"identity-0{suffix}").unlink()
    (root / "results" / NAME / "projected-0.png").unlink()
    text = readme(root)
    lines = [line for line in text.splitlines() if "Left out" in line]
    assert len(lines) == 1
    assert "`identity-0` (no identity-0.json, identity-0.csv, identity-0.png)" in lines[0]
    assert "`projected-0` (no projected-0.png)" in lines[0]
    assert not {"identity", "projected"} & set(first_table(text))


def test_what_an_experiment_lacks_is_left_out(root):
    for run in load_experiment(NAME, root).runs:
        if run != "identity-0":
            (root / "results" / NAME / f"{run}.json").unlink()
    folder = written(root)
    text = (folder / "README.md").read_text()
    assert first_table(text)["identity"]["MSE / vq"] == "–"
    assert not (folder / "figures" / "projected_training.png").exists()
    assert "nan" not in text


def test_the_same_results_give_the_same_bytes_anywhere_and_old_files_go(made, tmp_path):
    first = files_of(made / "reports" / NAME)
    elsewhere = tmp_path / "another place"
    shutil.copytree(made, elsewhere)
    stale = elsewhere / "reports" / NAME / "figures" / "old.png"
    stale.write_bytes(b"")
    command = (
        "from pathlib import Path\nfrom vqlib.reporting.exhibits import all_exhibits\n"
        "from vqlib.reporting.report import write_report\nfrom vqlib.reporting.results import load_results\n"
        f"results = load_results({NAME!r}, Path.cwd())\nwrite_report(results, all_exhibits(results))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", command], cwd=elsewhere, env=environment, check=True)
    second = files_of(elsewhere / "reports" / NAME)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert not [name for name, content in first.items() if str(made).encode() in content]


def test_the_table_of_runs_has_no_lists():
    runs = pd.DataFrame(
        {"run": ["vq-0", "projected-0"], "codes": [[{"ranks": [1]}], None], "gains.edges": [None, [0, 1]]}
    )
    assert list(single_values(runs)) == ["run"]


def test_torch_is_not_needed():
    command = "import sys, vqlib.reporting.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True)


class Page(HTMLParser):
    """Every attribute of every tag of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def test_the_page_loads_nothing_and_its_images_decode(made):
    folder = made / "reports" / NAME
    text = (folder / "report.html").read_text()
    page = Page(text)
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(images) == len(list((folder / "figures").glob("*.png"))) == 7
    for image in images:
        kind, content = image.split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as decoded:
            decoded.load()
            assert decoded.width > 1000
    loading = {"src", "srcset", "data", "poster", "background", "action"}
    assert all(value.startswith("data:") for _, name, value in page.attributes if name in loading)
    assert all(value == "data:," for tag, name, value in page.attributes if (tag, name) == ("link", "href"))
    assert not {tag for tag, *_ in page.attributes} & {"script", "iframe", "object", "embed"}
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text
    assert "<i>Fast" not in text  # what comes from a result is shown, not obeyed


def test_readme_links_only_to_files_that_are_there(made):
    folder = made / "reports" / NAME
    links = re.findall(r"\]\(([^)]+)\)", (folder / "README.md").read_text())
    assert len(links) >= 7
    assert all((folder / link).exists() for link in links)


def test_every_exhibit_says_where_it_comes_from(made):
    shown = all_exhibits(load_results(NAME, made))
    assert {*(f"Table {place}" for place in range(1, 5)), *(f"Figure {place}" for place in range(1, 8))} == set(shown)
    for exhibit in shown.values():
        if exhibit.name in ("models", "rate_distortion", "losses", "setting"):
            assert exhibit.provenance == ALL
        else:
            some = "projected-0" if exhibit.name == "projected_training" else "vq-0"
            assert exhibit.provenance == ALL or exhibit.provenance.startswith(f"Runs: {some}")
        assert "by digest" not in exhibit.provenance and "2,000 steps" not in exhibit.provenance
        assert exhibit._repr_html_().count("data:image/png") == (exhibit.kind == "Figure")


def test_what_all_runs_share_stands_at_the_head(made):
    head = readme(made).split("\n## ")[0]
    assert all(run in head for run in ("vq-0", "projected-0"))
    for fact in ("600 steps", "width 32", "CPU", "float32", f"data, by digest: {'d' * 12}"):
        assert fact in head
    assert "code that trains the model, by digest: 6 values (column provenance.code of tables/runs.csv)" in head


def test_the_default_says_that_it_judges_nothing(made):
    assert "judges nothing" in readme(made)


def test_a_text_cannot_show_an_image_from_elsewhere():
    with pytest.raises(ReportError, match=r"shows the image 'https://example.org/a.png'"):
        to_html("![x](https://example.org/a.png)", {})
    assert "<script>" not in to_html("<script>alert(1)</script>", {})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0191, "0.01910"), (9.99996, "10.00"), (0.5625, "0.5625"), (1234.56, "1,235"), (7500, "7,500"), (0.0, "0"),
     (-3.14159, "-3.142"), (3.2e-5, "3.200e-05"), (None, "–"), (float("nan"), "–")],
)  # fmt: skip
def test_a_number_has_four_significant_digits(value, text):
    assert number(value) == text


def test_cells_keep_their_place_in_every_form_of_a_table():
    shown = pd.DataFrame({"of": ["a | b"], "value": ["{x} ≤ “y”"]})
    table = Table(shown, shown)
    assert table.markdown().splitlines()[-1] == "| a \\| b | {x} ≤ “y” |"
    assert r"a | b & \{x\} $\le$ ``y'' \\" in table.latex()
    assert number(np.int64(12345)) == "12,345"
    both = pd.DataFrame({"of": ["x"], "value": ["of “alike” by `a_b` and **`c`** “d”"]})
    assert r"x & of ``alike'' by \texttt{a\_b} and \textbf{\texttt{c}} ``d'' \\" in Table(both, both).latex()


def test_committed_tables_for_latex_are_ascii():
    files = sorted((ROOT / "reports").rglob("*.tex"))
    assert files
    assert {file.name: bad for file in files if (bad := re.findall(r"[^\x00-\x7f]", file.read_text()))} == {}


def test_what_differs_from_the_paper_is_named(root):
    def caption() -> str:
        shown = all_exhibits(load_results(NAME, root)).values()
        return next(one.caption for one in shown if (one.kind, one.name) == ("Figure", "losses"))

    assert "not comparable with ours, which differ in data, train images, width, batch size, steps, " in caption()
    keys = ("width", "batch_size", "steps", "learning_rate")
    experiment = load_experiment(NAME, root)
    settings = {**vars(experiment.network), **vars(experiment.training)}
    text = (root / "params.yaml").read_text()
    for key in keys:
        text = re.sub(rf"^    {key}: .*$", f"    {key}: {paper.SETTING[key]}", text, count=1, flags=re.M)
    (root / "params.yaml").write_text(text)
    for run in experiment.runs:
        write_results(root, run)
        path = root / "results" / NAME / f"{run}.json"
        content = json.loads(path.read_text())
        content["provenance"]["train_images"] = paper.SETTING["train_images"]
        path.write_text(json.dumps(content))
    assert all(settings[key] != paper.SETTING[key] for key in keys)
    assert "not comparable with ours, which differ in data." in caption()
