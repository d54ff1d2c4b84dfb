"""The whole pipeline at its smallest size, in a copy of the repository whose path has a space in it.

The tests of this file build on one another in the order in which they stand: one `dvc repro` costs most of the time.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from ruamel.yaml import YAML

from vqlib.params import ROOT, experiment_names, load_experiment
from vqlib.provenance import TRAINING_CODE

PIPELINE = "experiments/smoke/dvc.yaml"
PARAMS = """\
root: ../..
params: experiments/smoke/params.yaml
experiment:
  name: smoke
  title: The smallest experiment
  data: {source: photos, image_size: 16, limit: 128}
  network: {width: 8, num_embeddings: 16}
  training: {steps: 20, batch_size: 16, learning_rate: 1e-3, device: cpu, log_every: 5, checkpoint_every: 6}
  prior:
    pixelcnn: {layers: 2, channels: 4, steps: 4}
    transformer: {layers: 1, channels: 4, steps: 4}
    reals: {layers: 1, channels: 4, steps: 4}
    batch_size: 16
    log_every: 2
    samples: 16
runs:
  vq-0: {variant: vq, bottleneck: vq, seed: 0}
  projected-0: {variant: projected, bottleneck: projected, seed: 0}
"""
TOY = '''"""Each value rounded to half a unit: a bottleneck without a codebook."""

from vqlib.bottlenecks import BottleneckBase
from vqlib.quantize import straight_through


class Bottleneck(BottleneckBase):
    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()

    def forward(self, z_e):
        return straight_through(z_e, (2 * z_e).round() / 2), {}, None

    def compress(self, z_e):
        return None, (2 * z_e).round() / 2

    def decompress(self, indices, continuous):
        return continuous
'''


class Repository:
    """A copy of the repository, and what one does in it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, *command: str, ok: bool = True) -> str:
        """Standard output and error of a command in the copy; asserts that it ends well (or, with ok=False, badly)."""
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=280)
        text = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, text[-6000:]
        return text

    def repro(self, *options: str) -> list[str]:
        """`dvc repro`; the names of the stages that ran."""
        text = self.run(sys.executable, "-m", "dvc", "repro", PIPELINE, *options)
        return re.findall(r"Running stage '(?:[^':]*:)?([^']+)'", text)

    def files(self, *patterns: str) -> dict[str, bytes]:
        found = [path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


def copy_of_repository(folder: Path) -> Repository:
    """What git would commit now, as a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    copy = Repository(folder)
    copy.run("git", "init", "-q")
    commit(copy)
    return copy


def commit(copy: Repository) -> None:
    copy.run("git", "add", "-A")
    copy.run(
        "git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "state", "--allow-empty"
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Repository:
    repository = copy_of_repository(tmp_path_factory.mktemp("a clone") / "vq vae")
    smoke = repository.folder / "experiments" / "smoke"
    smoke.mkdir()
    (smoke / "params.yaml").write_text(PARAMS)
    shutil.copy(ROOT / "dvc.yaml", smoke / "dvc.yaml")
    return repository


@pytest.mark.timeout(600)
def test_repro_makes_models_results_and_report(copy):
    stages = copy.repro()
    runs = ["vq-0", "projected-0"]
    assert sorted(stages) == sorted(
        [
            "notebooks",
            "prepare",
            "codecs",
            "report",
            *(f"{s}@{run}" for s in ("train", "evaluate", "prior") for run in runs),
        ]
    )
    for run in runs:
        result = json.loads((copy.folder / f"results/smoke/{run}.json").read_text())
        assert 0 < result["test"]["mse"] < 1
        assert result["rate"]["bpp_32bit"] > 0
        assert (copy.folder / f"runs/smoke/{run}/model.safetensors").stat().st_size > 1000
    codecs = json.loads((copy.folder / "results/smoke/codecs.json").read_text())["codecs"]
    assert all(row["bpp"] > 0 for codec in codecs.values() for rows in codec.values() for row in rows)
    report = (copy.folder / "reports/smoke/README.md").read_text()
    assert all(f"`{run.removesuffix('-0')}`" in report for run in runs)
    assert not list(copy.folder.glob("checkpoints/*/*.safetensors"))  # deleted on success


def test_nothing_runs_twice(copy):
    assert copy.repro() == []


def test_saving_notebooks_with_outputs_reruns_only_the_stripping(copy):
    path = copy.folder / "notebooks/02_train.ipynb"
    before = path.read_bytes()
    shutil.copy(copy.folder / "executed/smoke/02_train-vq-0.ipynb", path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell, original in zip(notebook.cells, nbformat.reads(before, as_version=4).cells, strict=True):
        cell["id"] = original.id  # JupyterLab keeps them
    nbformat.write(notebook, path)
    assert any(cell.get("outputs") for cell in notebook.cells)
    assert copy.repro() == ["notebooks"]
    path.write_bytes(before)
    assert copy.repro() == ["notebooks"]


def test_mending_the_prose_of_a_training_notebook_trains_nothing(copy):
    path = copy.folder / "notebooks/02_train.ipynb"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"# Train one run", b"# Train just one run"))
    assert path.read_bytes() != before
    assert copy.repro() == ["notebooks"]
    path.write_bytes(before)
    assert copy.repro() == ["notebooks"]


def test_forced_rerun_leaves_the_lock_as_it_was(copy):
    """One stage of each kind."""
    lock = (copy.folder / "experiments/smoke/dvc.lock").read_bytes()
    of_a_run = [f"{stage}@projected-0" for stage in ("train", "evaluate", "prior")]
    stages = ["notebooks", "prepare", "codecs", *of_a_run, "report"]
    copy.run(sys.executable, "-m", "dvc", "repro", "--force", "-s", *(f"{PIPELINE}:{stage}" for stage in stages))
    assert (copy.folder / "experiments/smoke/dvc.lock").read_bytes() == lock


KILLED = """
import os, signal
from vqlib import checkpoints, runs
from vqlib.params import load_experiment

save = checkpoints.save_state

def save_and_die(folder, state):
    save(folder, state)
    if state.step == 12:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.save_state = save_and_die
experiment = load_experiment("smoke")
runs.train_run(experiment, experiment.run("vq-0"))
"""


def test_a_killed_run_goes_on_and_ends_the_same(copy):
    lock = (copy.folder / "experiments/smoke/dvc.lock").read_bytes()
    copy.run(sys.executable, "-c", KILLED, ok=False)
    assert list(copy.folder.glob("checkpoints/*/*.safetensors"))
    text = copy.run(sys.executable, "-m", "dvc", "repro", "-f", "-s", f"{PIPELINE}:train@vq-0")
    assert "going on after step 12" in text
    assert (copy.folder / "experiments/smoke/dvc.lock").read_bytes() == lock


def test_a_new_variant_retrains_nothing_else(copy):
    kept = copy.files("runs/smoke/*/model.safetensors", "results/smoke/*")
    (copy.folder / "vqlib/bottlenecks/rounding.py").write_text(TOY)
    params = copy.folder / "params.yaml"
    params.write_text(params.read_text().replace("\nvariants:\n", "\nvariants:\n  rounding: {bottleneck: rounding}\n"))
    smoke = copy.folder / "experiments/smoke/params.yaml"
    smoke.write_text(smoke.read_text() + "  rounding-7: {variant: rounding, bottleneck: rounding, seed: 7}\n")
    first, *between, last = copy.repro()
    assert (first, sorted(between), last) == (
        "train@rounding-7", ["evaluate@rounding-7", "prior@rounding-7"], "report")  # fmt: skip
    assert kept.items() <= copy.files("runs/smoke/*/model.safetensors", "results/smoke/*").items()
    assert "`rounding`" in (copy.folder / "reports/smoke/README.md").read_text()


def test_a_clone_without_data_finds_all_results_up_to_date(copy, tmp_path):
    commit(copy)
    clone = Repository(tmp_path / "clone")
    copy.run("git", "clone", "-q", str(copy.folder), str(clone.folder))
    text = clone.run(sys.executable, "-m", "dvc", "repro", "-P", "--allow-missing", "--dry")
    assert "Running stage" not in text, text
    assert "experiments/smoke" in text
    source = clone.folder / "vqlib/quantize.py"
    source.write_text(source.read_text() + "\n# changed\n")
    text = clone.run(sys.executable, "-m", "dvc", "repro", "-P", "--allow-missing", "--dry", ok=False)
    assert "failed to reproduce" in text and "train@vq-0" in text  # it would have to run, and lacks its inputs here


def test_the_pipeline_is_one_text_and_stands_where_there_are_results():
    """An experiment that was never run has no dvc.yaml: `make repro` copies it, and it is committed with the lock."""
    tracked = subprocess.run(["git", "ls-files", "*dvc.yaml"], cwd=ROOT, capture_output=True, text=True, check=True)
    texts = {ROOT / path: (ROOT / path).read_text() for path in tracked.stdout.split() if path != "reports/dvc.yaml"}
    assert len(texts) > 1
    assert len(set(texts.values())) == 1
    assert [path for path in texts if not path.with_name("dvc.lock").is_file()] == []


def test_the_train_stage_depends_on_the_code_whose_digest_runs_record():
    text = (ROOT / "dvc.yaml").read_text()
    train = text[text.index("\n  train:") : text.index("\n  evaluate:")]
    named = set(re.findall(r"- (vqlib/\S+\.py)", train))
    assert named == {*TRAINING_CODE, "vqlib/bottlenecks/${item.bottleneck}.py"}


# What a stage uses without depending on it, and why a change of it may leave the stage's result as it is.
EXEMPT = {
    "vqlib/params.py": "DVC tracks the values",
    "vqlib/errors.py": "messages",
    "vqlib/files.py": "how files are written, not what",
    "vqlib/progress.py": "what is shown meanwhile",
    "vqlib/checkpoints.py": "tests hold a resumed run to the bits of an uninterrupted one",
    "vqlib/provenance.py": "what is said of a run",
    "vqlib/__init__.py": "empty",
    "vqlib/launch.py": "how processes are started",
    "vqlib/nb.py": "how notebooks are run",
    "vqlib/contract.py": "refuses a bottleneck before it is trained",
}
REPORTING = {
    f"vqlib/reporting/{name}.py": "a picture"
    for name in ("__init__", "families", "figures", "labels", "paper", "statistics", "style", "tables")
}
WEIGHTS = {file: "what decides the weights reaches evaluation through them" for file in TRAINING_CODE}
EXEMPT_OF = {
    "prepare": {"vqlib/sheets.py": "pictures", "vqlib/data/__init__.py": "names"},
    "train": REPORTING | {"vqlib/runs.py": "which files are written", "vqlib/data/__init__.py": "names",
                          **{f"vqlib/{name}.py": "imported by runs, not used" for name in
                             ("bitstream", "distortion", "evaluation", "opened", "perceptual", "rate",
                              "released_protocol", "tables", "uniform")}},
    "evaluate": WEIGHTS | {"vqlib/data/__init__.py": "names"},
    "prior": WEIGHTS | {"vqlib/data/__init__.py": "names", "vqlib/released_protocol.py": "of evaluation"},
    "report": {"vqlib/reporting/__init__.py": "empty"},
    "codecs": {"vqlib/data/__init__.py": "names"},
}  # fmt: skip


def imported_by(file: str, seen: set[str]) -> set[str]:
    """The repository's files that a module imports, and those that they import in turn."""
    tree = ast.parse((ROOT / file).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vqlib"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("vqlib")]
        else:
            continue
        for name in names:
            base = ROOT / name.replace(".", "/")
            for path in (base.with_suffix(".py"), base / "__init__.py"):
                found = path.relative_to(ROOT).as_posix()
                if path.is_file() and found not in seen:
                    seen.add(found)
                    if found not in EXEMPT:
                        imported_by(found, seen)
    return seen


def imported_in(notebook: str, folder: Path) -> set[str]:
    """The repository's files that the cells of a notebook import, and those that they import in turn."""
    script = folder / "notebook.py"
    cells = [
        cell.source for cell in nbformat.read(ROOT / f"notebooks/{notebook}.ipynb", 4).cells if "code" in cell.cell_type
    ]
    script.write_text("\n".join(line for cell in cells for line in cell.splitlines() if not line.startswith("%")))
    return imported_by(script.as_posix(), set())


@pytest.mark.parametrize(
    ("stage", "notebook"),
    [
        ("train", "02_train"),
        ("evaluate", "03_evaluate"),
        ("prior", "03_prior"),
        ("report", "04_report"),
        ("prepare", "01_prepare"),
    ],
)
def test_a_stage_depends_on_all_that_it_imports(stage, notebook, tmp_path):
    described = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    assert imported_in(notebook, tmp_path) <= {
        *described.get("do", described)["deps"],
        *EXEMPT,
        *EXEMPT_OF[stage],
    }


@pytest.mark.parametrize(("stage", "folder"), [("prepare", "vqlib/data/sources"), ("prior", "vqlib/priors")])
def test_a_stage_depends_on_all_that_is_imported_by_name(stage, folder):
    described = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*.py")}
    assert len(files) > 10
    assert files <= set(described.get("do", described)["deps"])


def test_the_codecs_depend_on_all_that_they_import():
    described = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["codecs"]
    found = imported_by("vqlib/codecs.py", {"vqlib/codecs.py"})
    assert found <= {*described["deps"], *EXEMPT, *EXEMPT_OF["codecs"]}
    assert {path for path in described["deps"] if path.startswith("vqlib")} <= found


def test_the_page_over_all_experiments_depends_on_each_that_judges_and_on_its_code():
    stage = YAML(typ="safe").load(ROOT / "reports/dvc.yaml")["stages"]["study"]
    names = [name for name in experiment_names() if load_experiment(name).judges]
    judging = [name for name in names if any((ROOT / "results" / name).glob("*.json"))]
    assert {dep for dep in stage["deps"] if dep.startswith("results/")} - {"results/FINDINGS.md"} == {
        f"results/{name}" for name in judging
    }
    assert ("results/FINDINGS.md" in stage["deps"]) is (ROOT / "results/FINDINGS.md").is_file()
    assert [next(iter(one)) for one in stage["params"]] == [f"experiments/{name}/params.yaml" for name in judging]
    needed = imported_by("vqlib/reporting/study.py", {"vqlib/reporting/study.py"})
    assert needed <= {*stage["deps"], *EXEMPT, "vqlib/reporting/__init__.py"}


def test_the_page_of_the_tour_depends_on_all_that_the_tour_imports(tmp_path):
    stage = YAML(typ="safe").load(ROOT / "reports/dvc.yaml")["stages"]["tour"]
    names = {"vqlib/data/__init__.py", "vqlib/reporting/__init__.py"}
    by_name = {f"vqlib/bottlenecks/{name}.py" for name in ("vq", "projected", "projected_rows", "identity")}
    assert imported_in("00_tour", tmp_path) | by_name <= {*stage["deps"], *EXEMPT, *names}
    assert {"vqlib/data/sources/photos.py", "vqlib/pages.py"} <= set(stage["deps"])
    assert all((ROOT / file).is_file() for file in stage["deps"] if file.startswith("vqlib"))


def test_every_stage_depends_on_exact_files_that_exist():
    text = (ROOT / "dvc.yaml").read_text()
    for file in set(re.findall(r"- ((?:vqlib|notebooks)/\S+)", text)):
        assert (ROOT / file.replace("${item.bottleneck}", "vq")).is_file(), file
