"""tools/full_scale.py: once from end to end on the smallest experiment (on the CPU, in a copy of the repository), and
how it deals runs to GPUs, with commands that only pretend to train."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_pipeline import PARAMS, Repository, copy_of_repository

from vqlib.params import ROOT

PROBE = """
import sys
sys.path.insert(0, "tools")
import full_scale as script
from vqlib.params import load_experiment
smoke = load_experiment("smoke")
run = smoke.run("vq-0")
print(script.is_current(smoke, run), script.is_evaluated(smoke, run))
longer = smoke.training.model_copy(update={"steps": 21})
print(script.is_current(smoke.model_copy(update={"training": longer}), run))
print(script.is_current(smoke, run.model_copy(update={"learning_rate": 2e-3})))
(smoke.run_folder(run) / "model.safetensors").unlink()
print(script.is_current(smoke, run), script.is_evaluated(smoke, run))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Repository:
    repository = copy_of_repository(tmp_path_factory.mktemp("full scale") / "copy")
    small = PARAMS.replace("limit: 128", "limit: 64")
    without = re.sub(r"  prior:\n(    .*\n)+|  projected-0: .*\n", "", small).replace("smoke", "single")
    single = without.replace("runs:", "  prior: {variants: []}\nruns:")
    for name, params in (("smoke", small), ("single", single)):
        place = repository.folder / "experiments" / name
        place.mkdir()
        (place / "params.yaml").write_text(params)
    return repository


def full_scale(copy: Repository, *options: str, status: int = 0, by: str = "vqlib") -> str:
    command = [sys.executable, "tools/full_scale.py", *options, "--device", "cpu", "--with", by, "--out", "kept"]
    done = subprocess.run(command, cwd=copy.folder, capture_output=True, text=True, timeout=550)
    assert done.returncode == status, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_one_command_makes_everything_and_keeps_it(copy):
    assert "1 of 1 runs are there" in full_scale(copy, "smoke", "--runs", "vq-0")
    kept = copy.folder / "kept"
    assert json.loads((kept / "results/smoke/vq-0.json").read_text())["run"] == "vq-0"
    assert json.loads((kept / "results/smoke/vq-0.prior.json").read_text())["rate"]["bpp_prior"] > 0
    assert json.loads((kept / "results/smoke/codecs.json").read_text())["codecs"]
    assert "`vq`" in (kept / "reports/smoke/README.md").read_text()
    assert (kept / "runs/smoke/vq-0/model.safetensors").stat().st_size > 10_000
    assert (kept / "data/prepared/smoke/manifest.json").is_file() and not list(kept.rglob("*.u8"))


@pytest.mark.timeout(600)
def test_as_stages_of_dvc_and_the_study_where_no_run_lacks(copy):
    told = full_scale(copy, "single", by="auto")
    assert "stages of DVC" in told and "1 of 1 runs are there" in told and "the study: done" in told
    kept = copy.folder / "kept"
    assert "train@vq-0" in (kept / "experiments/single/dvc.lock").read_text()
    assert "`vq`" in (kept / "reports/single/README.md").read_text()
    assert (kept / "reports/README.md").read_text() == (copy.folder / "reports/README.md").read_text()
    assert copy.run(sys.executable, "-m", "dvc", "status", "experiments/single/dvc.yaml").endswith("up to date.\n")


def test_a_dry_run_says_all_and_does_nothing(copy, monkeypatch, tmp_path):
    def files() -> set[str]:
        return {path for path in map(str, copy.folder.rglob("*")) if "__pycache__" not in path}

    before = files()
    monkeypatch.setenv("VQLIB_RAW", str(tmp_path))
    told = full_scale(copy, "smoke", "--dry-run", "--runs", "projected-0")
    assert "packages: all are there" in told and "GPUs: none" in told and " GB free" in told
    assert "images to be prepared from photos: 0.00 GB" in told or "images are prepared" in told
    assert "smoke projected-0: train, evaluate, prior" in told
    told = full_scale(copy, "cifar10", "--dry-run", status=2)
    assert "cifar10: images are MISSING" in told and "neither cifar-10-python.tar.gz nor" in told
    assert "cifar10 identity-0: train" in told
    assert files() == before


@pytest.mark.timeout(600)
def test_what_is_there_is_left_alone_and_no_other(copy):
    assert "0 of 2 runs are there; the same command goes on" in full_scale(copy, "smoke", "--minutes", "0", status=1)
    told = full_scale(copy, "smoke", "--runs", "vq-0")
    assert "smoke vq-0: up to date" in told and "smoke vq-0: train" not in told
    probed = subprocess.run([sys.executable, "-c", PROBE], cwd=copy.folder, capture_output=True, text=True, check=True,
                            env={**os.environ, "PYTHONPATH": str(copy.folder)})  # fmt: skip
    assert probed.stdout.split() == ["True", "True", "False", "False", "False", "False"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["smok"], "error: experiment 'smok' is not known; did you mean 'smoke'?"),
        (["smoke", "--runs", "vq-7"], "error: run 'vq-7' is not in the experiment 'smoke'"),
    ],
)
def test_mistakes_are_one_line(copy, options, said):
    assert full_scale(copy, *options, status=2).startswith(said)


@pytest.fixture
def script(monkeypatch):
    """The script as a module; nothing is there yet, and nothing is copied."""
    spec = importlib.util.spec_from_file_location("full_scale", ROOT / "tools" / "full_scale.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(module)
    for name in ("is_current", "is_evaluated", "has_prior"):
        monkeypatch.setattr(module, name, lambda experiment, run, kind="": False)
    monkeypatch.setattr(module, "bundle", lambda experiment, out: None)
    return module


def pretend(script, folder, slots: list, code: str, runs: int = 3, seconds: float = 60) -> list:
    """Jobs after they were worked through, where every step runs ``code`` with the step's and the run's name."""
    machine = script.Machine(slots, 1, folder / "logs", time.monotonic() + seconds, False)
    machine.command = lambda step, experiment, run=None: [sys.executable, "-S", "-c", code, step, run.name]
    jobs = [script.Job(SimpleNamespace(name="e"), SimpleNamespace(name=f"r{number}")) for number in range(runs)]
    script.work_through(jobs, machine, folder)
    return jobs


def said(folder, run: str) -> list[str]:
    return (folder / "logs" / "e" / f"{run}.log").read_text().split()


def test_runs_are_dealt_to_gpus_and_stay_there(script, tmp_path):
    code = "import os, time, sys; print(sys.argv[1], os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(0.3)"
    jobs = pretend(script, tmp_path, ["5", "7"], code, runs=4)
    assert [job.state for job in jobs] == ["done"] * 4
    seen = [said(tmp_path, f"r{number}") for number in range(4)]
    for said_by_run in seen:
        assert said_by_run[::2] == ["train", "evaluate", "prior"] and len(set(said_by_run[1::2])) == 1
    assert {lines[1] for lines in seen[:2]} == {"5", "7"}


def test_a_run_that_fails_does_not_stop_the_others(script, tmp_path, capsys):
    jobs = pretend(script, tmp_path, [None], "import sys; print('it broke'); sys.exit(sys.argv[2] == 'r1')")
    assert [job.state.split(" (")[0] for job in jobs] == ["done", "failed in train", "done"]
    assert "it broke" in capsys.readouterr().out


def test_when_the_time_is_up_runs_save_and_no_other_starts(script, tmp_path):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(130)))\n"
        "print('began', flush=True)\n"
        "time.sleep(50)"
    )
    jobs = pretend(script, tmp_path, [None], code, seconds=3)
    assert [job.state for job in jobs] == ["stopped", "waiting", "waiting"]
    assert said(tmp_path, "r0") == ["began", "saved"]


def test_what_a_command_started_saves_before_the_script_ends(script, tmp_path):
    """As with DVC, which ends at once on SIGTERM, and whose stage sees that and saves."""
    stage = (
        "import os, time\n"
        "print('began', flush=True)\n"
        "dvc = os.getppid()\n"
        "while os.getppid() == dvc: time.sleep(0.05)\n"
        "time.sleep(1)\n"
        "print('saved', flush=True)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {stage!r}])"
    jobs = pretend(script, tmp_path, [None], code, seconds=3)
    assert [job.state for job in jobs] == ["stopped", "waiting", "waiting"]
    assert said(tmp_path, "r0") == ["began", "saved"]


def test_slots_follow_the_gpus_that_may_be_seen(script, monkeypatch):
    torch = pytest.importorskip("torch")
    assert script.slots_of("cpu", 2) == [None, None]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert script.slots_of("auto", 2) == ["0", "1", "2", "0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert script.slots_of("cuda", 1) == ["4", "6"]


def test_a_run_that_asks_for_several_gpus_is_refused(script):
    def experiment(devices):
        return SimpleNamespace(name="e", training=SimpleNamespace(devices=devices))

    script.one_gpu_each([experiment("auto"), experiment(1)])
    with pytest.raises(script.Problem, match=r"e: training\.devices is 8, but here each run gets one GPU"):
        script.one_gpu_each([experiment(1), experiment(8)])


@pytest.mark.parametrize(("slots", "device"), [([None], "cpu"), (["3", "4"], "cuda")])
def test_at_the_end_come_study_and_benchmarks(script, monkeypatch, tmp_path, capsys, slots, device):
    monkeypatch.setattr(script, "ROOT", tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "README.md").write_text("the page")
    machine = script.Machine(slots, 1, tmp_path / "logs", float("inf"), False)
    started = []
    machine.do = lambda command, log, gpu=None: started.append((command[2:], gpu)) or 0
    one = SimpleNamespace(name="e", runs=["a", "b"], results=tmp_path)
    (tmp_path / "a.json").touch()
    script.study([one], machine, tmp_path / "out")
    assert not started and "the study is not drawn: 1 runs have no results, the first is e b" in capsys.readouterr().out
    (tmp_path / "b.json").touch()
    script.study([one], machine, tmp_path / "out")
    script.benchmarks(one, machine, tmp_path / "out")
    assert started == [
        (["vqlib.reporting.study"], slots[0]),
        (["benchmarks", "--device", device, "--experiment", "e"], slots[0]),
    ]
    assert (tmp_path / "out" / "reports" / "README.md").read_text() == "the page"


@pytest.fixture
def finished(script, monkeypatch, tmp_path):
    """What the script does once all runs are there, with commands that fail where they hold one of ``failing``: its
    exit status and what it started."""
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "prepare", lambda experiment, machine: None)
    monkeypatch.setattr(script, "work_through", lambda jobs, machine, out: None)
    one = SimpleNamespace(name="e", runs=["r"], results=tmp_path / "results/e", reports=tmp_path / "reports/e")
    for place in (one.results / "r.json", one.reports / "README.md", one.reports / "report.html"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        os.utime(place, (1000, 1000 + ("reports" in place.parts)))

    def finish(*failing: str, minutes: float = 1, with_benchmarks: bool = False) -> tuple[int, list[str]]:
        machine = script.Machine([None], 1, tmp_path / "logs", time.monotonic() + 60 * minutes, False)
        started = []
        machine.do = lambda command, log, gpu=None: started.append(command) or any(word in command for word in failing)
        job = script.Job(one, SimpleNamespace(name="r"))
        job.state = "up to date"
        status = script.run_all([one], [job], machine, tmp_path / "out", with_benchmarks)
        words = ("codecs", "report", "vqlib.reporting.study", "benchmarks")
        return status, [word for command in started for word in words if word in command]

    finish.experiment = one
    return finish


@pytest.mark.parametrize(
    ("failing", "left"),
    [
        (["codecs"], "the report of e"),
        (["report"], "the report of e"),
        (["vqlib.reporting.study"], "the study"),
        (["benchmarks"], "benchmarks"),
        (["codecs", "vqlib.reporting.study"], "the report of e, the study"),
    ],
)
def test_what_fails_after_the_runs_is_no_success(finished, capsys, failing, left):
    (finished.experiment.reports / "README.md").unlink()
    assert finished(*failing, with_benchmarks=True)[0] == 1
    assert f"1 of 1 runs are there; not done: {left}; the same command goes on\n" in capsys.readouterr().out
    assert finished(with_benchmarks=True) == (0, ["codecs", "report", "vqlib.reporting.study", "benchmarks"])


def test_benchmarks_that_the_time_did_not_allow_are_left(finished):
    assert finished(minutes=0, with_benchmarks=True) == (1, ["vqlib.reporting.study"])
    assert finished(minutes=0) == (0, ["vqlib.reporting.study"])


@pytest.mark.parametrize("stale", ["README.md", "report.html"])
def test_a_report_is_drawn_again_until_it_is_newer_than_every_result(finished, stale):
    assert finished() == (0, ["vqlib.reporting.study"])
    os.utime(finished.experiment.reports / stale, (999, 999))
    for _ in range(2):
        assert finished("report") == (1, ["codecs", "report", "vqlib.reporting.study"])
    (finished.experiment.reports / stale).touch()
    assert finished() == (0, ["vqlib.reporting.study"])
    (finished.experiment.results / "r.prior.csv").touch()
    os.utime(finished.experiment.results / "r.prior.csv", (1e10, 1e10))
    assert finished() == (0, ["codecs", "report", "vqlib.reporting.study"])


def dry_run(script, *options: str) -> int:
    return script.main(["sample", "--device", "cpu", "--dry-run", *options])


def refused(script, capsys, *options: str) -> str:
    """The one line that a dry run ends with."""
    assert dry_run(script, *options) == 2
    told, error = capsys.readouterr()
    assert not told and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_nothing_is_copied_onto_itself(script, capsys, tmp_path):
    for place in (ROOT, ROOT / "results", ROOT / "runs" / "sample" / "mine", ROOT / "tools" / ".."):
        assert "it may be any folder but the repository itself and" in refused(script, capsys, "--out", str(place))
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"{tmp_path / 'file'} is a file; it must be a folder" in refused(script, capsys, "--out", str(place))


def test_an_empty_place_in_the_environment_is_none(script, monkeypatch):
    places = []
    monkeypatch.setattr(script, "plan", lambda *given: places.append(given[-1]) or 0)
    for value, place in (("", "full_scale"), ("elsewhere", "elsewhere")):
        monkeypatch.setenv("OUT", value)
        assert dry_run(script) == 0 and places.pop() == Path(place).resolve()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--per-gpu", "0", "--per-gpu is 0; it must be a whole number from 1 to 64"),
        ("--per-gpu", "-2", "--per-gpu is -2; it must be"),
        ("--per-gpu", "65", "--per-gpu is 65; it must be"),
        ("--minutes", "-5", "--minutes is -5; it must be 0 or more"),
        ("--minutes", "nan", "--minutes is nan; it must be 0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(script, capsys, option, value, said):
    assert said in refused(script, capsys, f"{option}={value}")


def test_missing_packages_are_named(script, monkeypatch):
    monkeypatch.setitem(script.NEEDED, "nosuchmodule", "no-such-wheel")
    with pytest.raises(script.Problem, match="pip install no-such-wheel"):
        script.check("auto")
