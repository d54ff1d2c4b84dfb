"""``python -m vqlib.data``: exit codes, one line for each mistake, nothing slow for --help."""

import os
import subprocess
import sys

import pytest
from made_up import photos

from vqlib.data import __main__ as cli
from vqlib.params import ROOT, load_experiment


def test_help_and_bad_arguments():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "importtime", "-m", "vqlib.data"]
    shown = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and "prepare" in shown.stdout and "verify" in shown.stdout
    assert not {"torch", "skimage", "matplotlib"} & {
        line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()
    }
    with pytest.raises(SystemExit) as caught:
        cli.main(["make"])
    assert caught.value.code == 2


def test_prepare_and_verify(tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test's; in a notebook progress is a bar
    experiment = load_experiment("sample").model_copy(update={"data": photos(), "root": tmp_path})
    monkeypatch.setattr(cli, "load_experiment", lambda name: experiment)
    assert cli.main(["prepare", "sample", "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith("train 2,100, validation 922, test 568; 0 images dropped; digest ")
    assert cli.main(["verify", str(experiment.prepared)]) == 0
    path = experiment.prepared / "test.u8"
    path.write_bytes(b"")
    capsys.readouterr()
    assert cli.main(["verify", str(experiment.prepared)]) == 2
    error = (
        f"error: {path} has 0 bytes, 109,056 bytes belong there; delete {path.parent / 'manifest.json'} and prepare "
    )
    last = "verified: 3,590/3,590 images (100%)"
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith(last)] == [
        f"{error}again", f"{path} is damaged in chunk 0 (images 0 to 567)"
    ]  # fmt: skip


def test_ctrl_c_says_that_work_is_kept(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "prepare", interrupted)
    assert cli.main(["prepare", "sample"]) == 130
    assert capsys.readouterr().err == "interrupted; finished chunks are kept, and the same command goes on from there\n"


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert cli.main(["prepare", "smaple"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "sample" in error
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'manifest.json'} is missing: run the prepare stage first (`dvc repro`, or "
        f"`python -m vqlib.data prepare {tmp_path.name}`)\n"
    )
