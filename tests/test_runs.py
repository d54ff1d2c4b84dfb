"""From prepared data to files: what a run writes, and what stops it. The prepared data are stand-ins."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from support import NETWORK, held_by_another, make_experiment, make_run, make_split

from vqlib import checkpoints, opened, runs, training
from vqlib.checkpoints import load_state
from vqlib.errors import BusyError, DataError, DeviceError, DivergedError, StaleCodeError
from vqlib.files import rounded
from vqlib.model import load_model
from vqlib.params import ROOT
from vqlib.provenance import TRAINING_CODE, code_digest
from vqlib.runs import evaluate_run, history_csv, train_run
from vqlib.training import COLUMNS

BUDGET = {"steps": 7, "checkpoint_every": 2, "log_every": 3}
# Trains as the tests do, and ends as if by kill -9 around the rename of its second checkpoint.
KILLED = """
import os, signal, sys
from pathlib import Path
import test_runs as here
root, when = Path(sys.argv[1]), sys.argv[2]
renamed, real = [], os.replace
def replace(source, target):
    renamed.append(target)
    if when == "before" and len(renamed) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
    if when == "after" and len(renamed) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
here.runs.open_split = here.open_stand_in
here.train_run(here.make_experiment(root, **here.BUDGET), here.make_run())
"""


def open_stand_in(folder, name, image_size):
    assert folder.parts[-3:] == ("data", "prepared", "smoke")
    assert image_size == 16
    images, seed = {"train": (22, 1), "validation": (7, 2), "test": (18, 3)}[name]
    split = make_split(images, seed=seed, name=name)
    return type(split)(split.name, split.images, split.labels, split.classes, "d" * 64)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with a copy of the code, whose prepared data are stand-ins."""
    for file in (*TRAINING_CODE, "vqlib/bottlenecks/vq.py", "vqlib/bottlenecks/projected.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    for module in (runs, opened):
        monkeypatch.setattr(module, "open_split", open_stand_in)
    for name in ("VQLIB_CHECKPOINTS", "VQLIB_PIPELINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def restored_determinism():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def made(root: Path, run: str = "vq-0") -> tuple[bytes, str]:
    """The model and the history of a run."""
    return ((root / "runs/smoke" / run / "model.safetensors").read_bytes(),
            (root / "results/smoke" / f"{run}.csv").read_text())  # fmt: skip


def test_a_run_writes_its_model_and_history_and_forgets_its_checkpoints(root):
    experiment, run = make_experiment(root, **BUDGET), make_run()
    trained = train_run(experiment, run)
    model, description = load_model(root / "runs/smoke/vq-0/model.safetensors")
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, trained.weights[key], rtol=1e-3, atol=1e-6)
    facts = description["provenance"]
    assert facts["best_step"] == trained.best_step
    assert (facts["steps"], facts["batch_size"], facts["train_images"], facts["width"]) == (7, 4, 22, NETWORK.width)
    assert (facts["device"], facts["precision"], facts["torch"]) == ("cpu", "float32", torch.__version__)
    assert facts["code"] == code_digest(experiment, run)[:12]
    assert facts["data"] == "d" * 12
    rows = list(csv.DictReader(io.StringIO(made(root)[1])))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["step"], row["split"]) for row in rows] == [
        ("3", "train"), ("5", "validation"), ("6", "train"), ("7", "train"), ("7", "validation"),
    ]  # fmt: skip
    assert rows[0]["projection_loss"] == ""
    assert list((root / "checkpoints").iterdir()) == []


def test_a_forced_rerun_writes_the_same_bytes(root):
    experiment, run = make_experiment(root, **BUDGET), make_run()
    train_run(experiment, run)
    evaluate_run(experiment, run)
    files = [root / "runs/smoke/vq-0/model.safetensors", *sorted((root / "results/smoke").iterdir())]
    assert [file.name for file in files] == ["model.safetensors", "vq-0.csv", "vq-0.json", "vq-0.png"]
    before = [file.read_bytes() for file in files]
    torch.manual_seed(77)
    train_run(experiment, run)
    evaluate_run(experiment, run)
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(root, monkeypatch, capfd, when):
    killed = subprocess.run([sys.executable, "-c", KILLED, root, when], cwd=ROOT, timeout=120,
                            env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"})  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert not (root / "runs/smoke/vq-0/model.safetensors").exists()
    steps, done = [], 2 if when == "before" else 4
    batch_indices = training.batch_indices
    monkeypatch.setattr(training, "batch_indices", lambda step, *a: (steps.append(step), batch_indices(step, *a))[1])
    train_run(make_experiment(root, **BUDGET), make_run())
    assert steps == list(range(done, 7))
    assert f"vq-0: going on after step {done}" in capfd.readouterr().err
    resumed = made(root)
    shutil.rmtree(root / "runs")
    train_run(make_experiment(root, **BUDGET), make_run())
    assert "going on" not in capfd.readouterr().err
    assert made(root) == resumed


def test_changed_parameters_do_not_resume_an_old_run(root, monkeypatch, capfd):
    def full(folder, state):
        checkpoints_save(folder, state)
        raise OSError(28, "No space left on device")

    checkpoints_save = checkpoints.save_state
    monkeypatch.setattr(checkpoints, "save_state", full)
    with pytest.raises(OSError, match="No space left"):
        train_run(make_experiment(root, **BUDGET), make_run())
    monkeypatch.setattr(checkpoints, "save_state", checkpoints_save)
    (folder,) = (root / "checkpoints").iterdir()
    assert load_state(folder, warn=pytest.fail).step == 2

    train_run(make_experiment(root, **BUDGET), make_run(learning_rate=2e-3))
    assert "going on" not in capfd.readouterr().err
    assert load_state(folder, warn=pytest.fail).step == 2  # it waits for its own run
    train_run(make_experiment(root, **BUDGET), make_run())
    assert "going on after step 2" in capfd.readouterr().err


def test_a_second_process_on_the_same_run_is_refused_at_once(root):
    experiment, run = make_experiment(root, **BUDGET), make_run()
    with held_by_another(experiment.run_folder(run)) as first:
        began = time.monotonic()
        with pytest.raises(BusyError, match=f"process {first.pid} is already training vq-0") as caught:
            train_run(experiment, run)
        assert time.monotonic() - began < 1
    assert "\n" not in str(caught.value)


def test_code_that_changes_during_a_run_makes_it_fail(root, monkeypatch):
    def train_while_someone_edits(*arguments, **options):
        with open(root / "vqlib/quantize.py", "a") as file:
            file.write("# a change\n")
        return train(*arguments, **options)

    train = runs.train
    monkeypatch.setattr(runs, "train", train_while_someone_edits)
    with pytest.raises(StaleCodeError) as caught:
        train_run(make_experiment(root, **BUDGET), make_run())
    assert "\n" not in str(caught.value)
    assert "vq-0: vqlib/quantize.py is not as it was when this process imported it" in str(caught.value)
    assert not (root / "runs/smoke/vq-0/model.safetensors").exists()
    assert not (root / "results").exists()


def test_another_bottlenecks_code_may_change_during_a_run(root, monkeypatch):
    def train_while_someone_edits(*arguments, **options):
        (root / "vqlib/bottlenecks/projected.py").write_text("")
        return train(*arguments, **options)

    train = runs.train
    monkeypatch.setattr(runs, "train", train_while_someone_edits)
    train_run(make_experiment(root, **BUDGET), make_run())


def test_divergence_leaves_a_report_and_the_good_checkpoints(root):
    experiment = make_experiment(root, **{**BUDGET, "checkpoint_every": 1})
    with pytest.raises(DivergedError) as caught:
        train_run(experiment, make_run(learning_rate=1e30))
    (folder,) = (root / "checkpoints").iterdir()
    report = json.loads((folder / "diverged.json").read_text())
    assert (report["run"], report["first_bad_step"], len(report["batch"])) == ("vq-0", 2, 4)
    assert str(folder / "diverged.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_state(folder, warn=pytest.fail).step == 1
    assert not (root / "runs/smoke/vq-0/model.safetensors").exists()


def test_asked_for_a_gpu_that_is_not_there_nothing_starts(root, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"training\.device is 'cuda'"):
        train_run(make_experiment(root, device="cuda"), make_run())
    assert not (root / "runs").exists()


def test_without_prepared_data_or_a_model_the_missing_stage_is_named(root, monkeypatch):
    with pytest.raises(DataError, match="the stage train makes it"):
        evaluate_run(make_experiment(root), make_run())
    monkeypatch.undo()
    with pytest.raises(DataError, match="prepare"):
        train_run(make_experiment(root), make_run())


def test_a_model_that_was_trained_otherwise_is_not_evaluated(root):
    experiment, run = make_experiment(root, **BUDGET), make_run()
    train_run(experiment, run)
    longer = make_experiment(root, **(BUDGET | {"steps": BUDGET["steps"] + 1}))
    with pytest.raises(DataError, match=r"vq-0/model.safetensors: trained with other values of steps than there are"):
        evaluate_run(longer, run)
    with pytest.raises(DataError, match=r"other values of learning_rate than"):
        evaluate_run(experiment, run.model_copy(update={"learning_rate": 0.5}))
    assert evaluate_run(experiment, run)["run"] == "vq-0"


@pytest.mark.parametrize("variant", ["vq", "projected"])
def test_an_evaluation_is_complete(root, variant):
    experiment, run = make_experiment(root, **BUDGET), make_run(variant)
    train_run(experiment, run)
    result = evaluate_run(experiment, run)
    assert json.loads((root / f"results/smoke/{variant}-0.json").read_text()) == result
    assert {key: result[key] for key in ("experiment", "run", "variant", "bottleneck", "seed")} == {
        "experiment": "smoke", "run": f"{variant}-0", "variant": variant, "bottleneck": variant, "seed": 0,
    }  # fmt: skip
    assert (result["test"]["images"], result["train"]["images"]) == (18, 18)
    assert result["test"].keys() > result["train"].keys()
    assert result["rate"]["bpp_codes"] == 0.5625
    assert result["provenance"]["parameters"] == sum(p.numel() for p in load_model(
        root / f"runs/smoke/{variant}-0/model.safetensors")[0].parameters())  # fmt: skip
    continuous = {key for key, value in result["test"].items() if value is None}
    assert continuous == {"lpips", "rfid"} | (
        set() if variant == "projected" else {"projection", "mse_8bit", "psnr_8bit", "ssim_8bit"}
    )
    assert Image.open(root / f"results/smoke/{variant}-0.png").size == (16 * 16, 2 * 16)


def test_floats_are_rounded_to_four_digits_at_any_depth():
    assert rounded({"a": [1.23456, {"b": 123456.0}], "c": 7, "d": None, "e": "1.23456"}) == {
        "a": [1.235, {"b": 123500.0}], "c": 7, "d": None, "e": "1.23456",
    }  # fmt: skip
    assert rounded(1e-9 / 3) == 3.333e-10
    assert rounded(123_456_789) == 123_456_789  # a count stays exact


def test_a_column_of_one_variant_alone_comes_last():
    text = history_csv([{"step": 1, "split": "train", "mask_share": 0.25}, {"step": 2, "split": "train"}]).decode()
    header, first, second = text.splitlines()
    assert header == ",".join([*COLUMNS, "mask_share"])
    assert first == f"1,,train{',' * (len(COLUMNS) - 2)}0.25"
    assert second == f"2,,train{',' * (len(COLUMNS) - 2)}"
