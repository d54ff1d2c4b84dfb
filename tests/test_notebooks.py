"""The committed notebooks: clean, in form, and able to run."""

import re
import subprocess
import sys

import nbformat
import pytest

from vqlib import nb
from vqlib.errors import ParameterError, UserError
from vqlib.params import ROOT
from vqlib.reporting.exhibits import all_exhibits
from vqlib.reporting.results import load_results

NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path):
    assert path.read_bytes() == nb.to_bytes(nb.strip(nb.read(path))), f"run: python -m vqlib.nb strip {path.name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_reads_like_an_essay(path):
    """Title, Reads / Writes / Takes, one cell of parameters, short cells of code with text between them."""
    cells = nb.read(path).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].source.startswith("# ")
    assert all(f"**{word}**" in cells[0].source for word in ("Reads", "Writes", "Takes"))
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert 6 <= len(code) <= 16
    assert all(len(cell.source.splitlines()) <= 15 for cell in code)
    assert not any("pip install" in cell.source for cell in cells)


def test_all_that_the_design_names_are_there():
    assert {"00_tour", "01_prepare", "02_train", "03_evaluate", "04_report"} <= {path.stem for path in NOTEBOOKS}


def test_the_reports_notebook_shows_every_exhibit():
    source = "".join(cell.source for cell in nb.read(ROOT / "notebooks/04_report.ipynb").cells)
    for name in ("tiny_imagenet_32_sweep", "tiny_imagenet_32_small"):
        exhibits = all_exhibits(load_results(name)).values()
        assert not [one.name for one in exhibits if f'"{one.name}"' not in source and not one.name.startswith("prior")]


def test_a_notebook_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.ipynb: not a notebook \(FileNotFoundError\)"):
        nb.run(tmp_path / "nowhere.ipynb", tmp_path / "executed.ipynb", {})


@pytest.mark.timeout(600)
def test_the_tour_runs_from_a_fresh_clone(tmp_path):
    """With a fifth of its steps: what it asserts is true of models that have learnt less, too."""
    target = tmp_path / "tour.ipynb"
    nb.run(ROOT / "notebooks/00_tour.ipynb", target, {"steps": 100})
    executed = nb.read(target)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code" and cell.source)
    assert (
        sum("image/png" in output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])) > 4
    )


def test_the_page_of_the_tour_is_the_tour():
    """Every cell of the notebook stands in the committed page, and every figure of it where the page looks for it."""
    page = (ROOT / "reports/tour/README.md").read_text()
    cells = nb.read(ROOT / "notebooks/00_tour.ipynb").cells
    missing = [cell.source for cell in cells if cell.source.strip() not in page]
    assert not missing, "make it again: make tour"
    shown = re.findall(r"!\[[^]]+\]\((.+)\)", page)
    assert len(shown) > 4
    assert sorted(shown) == sorted(f"figures/{path.name}" for path in (ROOT / "reports/tour/figures").iterdir())


def test_a_page_has_what_the_cells_show_and_no_older_pictures(tmp_path):
    executed = small([
        nbformat.v4.new_markdown_cell("# Title\n\n![png](kept)"),
        nbformat.v4.new_code_cell("one"),
        nbformat.v4.new_code_cell("two\n\n\nthree"),
    ])  # fmt: skip
    html = "<div>\n<style scoped>\n    .dataframe { color: red }\n</style>\n<table><tr><td>7</td></tr></table></div>"
    executed.cells[1]["outputs"] = [nbformat.v4.new_output("display_data", {"image/png": "aGVsbG8="})]
    executed.cells[2]["outputs"] = [nbformat.v4.new_output("display_data", {"text/html": html, "text/plain": "7"})]
    nbformat.write(executed, tmp_path / "small.ipynb")
    folder = tmp_path / "page"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "cell_9_0.png").write_bytes(b"old")
    assert nb.main(["page", str(tmp_path / "small.ipynb"), str(folder)]) == 0
    page = (folder / "README.md").read_text()
    assert "# Title" in page and "```python\none\n```" in page and "](../../notebooks/small.ipynb)" in page
    assert "```python\ntwo\n\n\nthree\n```" in page and "![png](kept)" in page
    assert (
        "![what the cell above shows](figures/cell_1_0.png)" in page
        and "<td>7</td>" in page
        and "dataframe" not in page
    )
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == {"cell_1_0.png": b"hello"}


def test_a_page_of_what_is_no_notebook_is_one_line(tmp_path, capsys):
    assert nb.main(["page", str(tmp_path / "none.ipynb"), str(tmp_path / "page")]) == 2
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "page").exists()


def small(cells: list) -> nbformat.NotebookNode:
    return nb.strip(nbformat.v4.new_notebook(cells=cells))


@pytest.fixture
def noisy(tmp_path):
    """A notebook whose outputs hold what changes from run to run, with one parameter."""
    path = tmp_path / "noisy.ipynb"
    parameters = nbformat.v4.new_code_cell('word = "none"', metadata={"tags": ["parameters"]})
    body = (
        "import sys, time\nfor i in range(9):\n    print(word, i, flush=True)\n    print(time.time(), file=sys.stderr)"
    )
    nbformat.write(small([parameters, nbformat.v4.new_code_cell(body)]), path)
    return path


def test_an_executed_copy_is_the_same_every_time(noisy, tmp_path):
    for name in ("one", "two"):
        nb.run(noisy, tmp_path / name / "out.ipynb", {"word": "hello"})
    one, two = ((tmp_path / name / "out.ipynb").read_bytes() for name in ("one", "two"))
    assert one == two
    outputs = nbformat.reads(one, as_version=4).cells[-1].outputs
    assert [output.text for output in outputs] == ["".join(f"hello {i}\n" for i in range(9))]
    assert b"papermill" not in one


def test_only_known_parameter_names_reach_papermill(noisy, tmp_path):
    for name in ("wrod", "word\nimport os", "Word", "__import__"):
        with pytest.raises(ParameterError, match="is no parameter"):
            nb.run(noisy, tmp_path / "out.ipynb", {name: "x"})
    assert not (tmp_path / "out.ipynb").exists()


def test_a_users_mistake_inside_a_notebook_is_one_line(tmp_path):
    path = tmp_path / "bad.ipynb"
    cell = nbformat.v4.new_code_cell('from vqlib.errors import DataError\nraise DataError("path: nothing there")')
    parameters = nbformat.v4.new_code_cell('word = ""', metadata={"tags": ["parameters"]})
    nbformat.write(small([parameters, cell]), path)
    with pytest.raises(UserError) as caught:
        nb.run(path, tmp_path / "out.ipynb", {})
    assert str(caught.value) == "path: nothing there"
    assert not (tmp_path / "out.ipynb").exists()
    assert (tmp_path / "out.failed.ipynb").exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["-r", "experiment", "sampel"], "did you mean 'sample'?"),
        (["-r", "experiment", "sample", "-r", "run", "vq-1"], "did you mean 'vq-0'?"),
        (["-r", "experimnt", "sample"], "did you mean 'experiment'?"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(parameters, message, tmp_path):
    command = [sys.executable, "-m", "vqlib.nb", "run", "notebooks/02_train.ipynb", str(tmp_path / "out.ipynb")]
    done = subprocess.run([*command, *parameters], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
