"""Results made again against the committed ones, in a small git repository."""

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from reporting.synthetic_results import NAME, add_runs, make_repository

from vqlib import compare

ERRORS = {"vq-0": 0.02, "vq-1": 0.03, "vq-2": 0.04}  # their standard deviation is 0.01
COMMIT = ("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "state")
HALF = 0.0496827  # 4.302653 (t, 2 degrees of freedom, 97.5 %) * 0.01 * sqrt(1 + 1/3)


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = make_repository(tmp_path / "copy")
    add_runs(folder, "vq", range(1, 3))
    for run, error in ERRORS.items():
        change(folder, run, "test.mse", error)
    git(folder, "init", "-q")
    commit(folder)
    monkeypatch.setattr(compare, "ROOT", folder)
    return folder


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, *COMMIT)


def change(folder: Path, run: str, key: str, value: object) -> None:
    path = folder / "results" / NAME / f"{run}.json"
    content = json.loads(path.read_text())
    section, _, name = key.partition(".")
    content[section][name] = value
    path.write_text(json.dumps(content))


def said(capsys, *arguments: str) -> tuple[int, str]:
    """Exit status and the words of the output, with single spaces."""
    status = compare.main([NAME, *arguments])
    return status, "\n".join(" ".join(line.split()) for line in capsys.readouterr().out.splitlines())


def test_half_of_a_prediction_interval_by_hand():
    assert compare.half_prediction_interval(np.array(list(ERRORS.values()))) == pytest.approx(HALF, rel=1e-5)
    assert compare.half_prediction_interval(np.array([1.0, 2.0, 4.0, 5.0])) == pytest.approx(
        3.182446 * math.sqrt(10 / 3) * math.sqrt(1.25), rel=1e-5
    )
    assert math.isnan(compare.half_prediction_interval(np.array([1.0, 2.0])))


def test_the_committed_files_are_counted_and_not_listed(root, capsys):
    status, text = said(capsys)
    assert status == 0
    assert "0 runs made again; 8 runs with the very file of HEAD" in text and "test MSE" not in text


@pytest.mark.parametrize(
    ("error", "status", "row"),
    [
        (0.0796, 0, "vq-0 test MSE 0.02000 0.07960 +298.00 % 0.03000 ± 0.050 as seeds differ"),
        (0.0798, 1, "vq-0 test MSE 0.02000 0.07980 +299.00 % 0.03000 ± 0.050 more than seeds differ"),
        (0.02, 0, "vq-0 test MSE 0.02000 0.02000 +0.00 % 0.03000 ± 0.050 the same"),
    ],
)
def test_a_difference_is_held_against_what_seeds_differ_by(root, capsys, error, status, row):
    change(root, "vq-0", "test.mse", error)
    change(root, "vq-0", "provenance.threads", 1)
    found, text = said(capsys)
    assert found == status and row in text
    assert "1 run made again; 7 runs with the very file of HEAD" in text
    assert "of 3 numbers: " in text  # these synthetic results have no bitstreams
    assert ("1 of the 1 judged" in text) == bool(status)


def test_with_fewer_than_three_seeds_it_cannot_be_judged(root, capsys):
    change(root, "identity-0", "test.psnr", 99.0)
    status, text = said(capsys)
    assert status == 0 and "+" in text and "cannot be judged: 1 seed" in text


def test_seeds_at_another_learning_rate_are_no_seeds_of_the_model(root):
    path = root / "params.yaml"
    other = "  vq-3-lr2e-3: {variant: vq, bottleneck: vq, seed: 3, learning_rate: 2e-3}\n"
    path.write_text(path.read_text().replace("runs:\n", f"runs:\n{other}", 1))
    experiment = compare.load_experiment(NAME, root)
    assert compare.seeds(experiment, "vq-1", experiment.runs) == ["vq-1", "vq-2", "vq-0"]
    assert compare.seeds(experiment, "vq-3-lr2e-3", experiment.runs) == ["vq-3-lr2e-3"]


def test_measured_bits_stand_beside_each_other_with_8_bit_numbers_too(root, capsys):
    for run in ("projected-0", "vq-0"):
        change(root, run, "rate.bpp_bitstream", 0.3)
    change(root, "projected-0", "rate.precisions", [{"bits": 8, "bpp_bitstream": 0.75}])
    commit(root)
    change(root, "projected-0", "rate.precisions", [{"bits": 8, "bpp_bitstream": 0.78}])
    status, text = said(capsys)
    assert status == 0 and "bits per pixel, codes 0.3000 0.3000 +0.00 % – the same" in text
    assert "bits per pixel, all at 8 bits 0.7500 0.7800 +4.00 % – cannot be judged: 1 seed" in text
    change(root, "vq-0", "rate.bpp_bitstream", None)
    status, text = said(capsys, "vq-0")
    assert status == 1 and "bits per pixel, codes 0.3000 – – – measured on one side alone" in text


def test_one_unit_of_the_last_digit_is_never_more_than_seeds_differ_by():
    for old, new, said in ((0.5241, 0.5242, compare.AS_SEEDS), (0.5241, 0.5243, compare.MORE),
                           (9.999, 10.0, compare.AS_SEEDS), (9.999, 10.02, compare.MORE)):  # fmt: skip
        assert compare.judged(old, new, mean=old, half=0.0) == said


def test_it_says_what_the_results_were_made_with_once_for_all_runs(root, capsys):
    for run in ("vq-0", "vq-1"):
        change(root, run, "provenance.hardware", "1 x GPU")
        change(root, run, "provenance.code", f"{run}-code")
    status, text = said(capsys)
    assert status == 0
    assert "hardware differs in 2 of 2 runs: 2 x <i>Fast</i> CPU committed, 1 x GPU here\n" in text
    assert text.count("code differs in 2 of 2 runs: ") == 1 and "here, and another pair\n" in text
    assert "torch differs" not in text and "data differs" not in text


def test_runs_and_a_revision_can_be_named(root, capsys):
    change(root, "vq-0", "test.mse", 0.5)
    commit(root)
    assert said(capsys)[0] == 0
    assert said(capsys, "vq-0", "--with", "HEAD~1")[0] == 1
    status, text = said(capsys, "vq-1", "--with", "HEAD~1")
    assert status == 0 and "0 runs made again; 1 run with the very file of HEAD~1" in text


def test_runs_without_results_on_one_side_are_named(root, capsys):
    (root / "results" / NAME / "identity-0.json").unlink()
    add_runs(root, "vq", range(3, 4))
    status, text = said(capsys)
    assert status == 0
    assert "missing at HEAD, so not compared: vq-3" in text and "missing here, so not compared: identity-0" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing"], "experiment 'nothing' is not known"),
        ([NAME, "vq-9"], "run 'vq-9' is not in the experiment"),
        ([NAME, "--with", "v9"], "--with is 'v9'; it must be a commit, branch or tag"),
        ([NAME, "vq-3"], f"results/{NAME}/vq-3.json: missing at HEAD; name a --with"),
        ([NAME, "identity-0"], f"results/{NAME}/identity-0.json: missing here; evaluate"),
        ([NAME, "vq-2"], f"results/{NAME}/vq-2.json: not the result of a run (JSONDecodeError"),
        ([NAME, "vq-1"], f"results/{NAME}/vq-1.json: not the result of a run (KeyError: 'mse')"),
        ([NAME, "vq-0"], f"results/{NAME}/vq-0.json: not the result of a run (TypeError: '0.03' where a number"),
    ],
)
def test_a_mistake_is_one_line(root, capsys, arguments, line):
    add_runs(root, "vq", range(3, 4))
    folder = root / "results" / NAME
    (folder / "identity-0.json").unlink()
    (folder / "vq-2.json").write_text("{")
    change(root, "vq-0", "test.mse", "0.03")
    (folder / "vq-1.json").write_text('{"test": {}, "rate": {}, "provenance": {}}')
    assert compare.main(arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and line in told.err and told.err.count("\n") == 1 and not told.out


def test_without_git_or_committed_results_it_is_one_line(root, capsys, tmp_path, monkeypatch):
    git(root, "rm", "-rq", "--cached", "results")
    git(root, *COMMIT)
    assert compare.main([NAME]) == 2
    assert f"results/{NAME}: no run has results at HEAD" in capsys.readouterr().err
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (root / ".git").rename(tmp_path / "elsewhere")
    assert compare.main([NAME]) == 2
    assert "not a git repository" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert compare.main([NAME]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: git: not found on this machine") and told.count("\n") == 1
