"""What a fresh clone does before any of vqlib runs: lock, conda's file, Makefile, DVC's configuration, CI's script.

The Makefile and its script really run, in a copy whose path has a space, with a stand-in for Python that logs what pip
is asked for.
"""

import configparser
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

import vqlib

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"^([a-z0-9][a-z0-9-]*)==(\S+)( ; .+)? \\$", re.MULTILINE)
PLATFORMS = re.findall(r"^#   (\w+ \w+ CPython \d\.\d+)$", LOCK, re.MULTILINE)

FAKE_PYTHON = r"""#!/bin/sh
case "$*" in
"-c import platform"*) [ -n "$FAKE_PLATFORM" ] && echo "$FAKE_PLATFORM" ;;
"-m venv --clear .venv") cp "$0" fake && rm -rf .venv && mkdir -p .venv/bin && mv fake .venv/bin/python ;;
"-m pip install"*)
    echo "$*" >>"$FAKE_LOG"
    case "$*" in *"$FAKE_FAILURE"*) exit 1 ;; *stdin) cat >>"$FAKE_LOG" ;; esac ;;
"-m dvc"* | "-m vqlib"*)
    echo "$*" >>"$FAKE_LOG"
    case "$*" in *"$FAKE_FAILURE"*) exit 1 ;; esac ;;
"-m pytest"*) echo "$0 PYTHONPATH=${PYTHONPATH-none}" >>"$FAKE_LOG" ;;
esac
"""
BACKEND = "setuptools==84.2.1 \\\n    --hash=sha256:1\n"
SMALL_LOCK = f"#   {PLATFORMS[0]}\nnumpy==2.4.6 \\\n    --hash=sha256:2 \\\n    --hash=sha256:3\n{BACKEND}six==1 \\\n"
LOCKED = [
    "-m pip install --require-hashes -r /dev/stdin",
    *BACKEND.splitlines(),
    "-m pip install --require-hashes --no-build-isolation -r requirements.lock",
]
PACKAGE = ["-m pip install --quiet --no-deps --no-build-isolation -e ."]


class Clone:
    """A folder with the files that `make` needs and a fake Python; remembers what pip was asked for."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder / "log"
        (folder / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", folder)
        shutil.copy(ROOT / "tools" / "venv.sh", folder / "tools")
        (folder / "requirements.lock").write_text(SMALL_LOCK)
        (folder / "pyproject.toml").write_text("")
        self.python = folder / "fake python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def make(self, *arguments: str, platform: str = PLATFORMS[0], failure: str = "nothing", **variables: str):
        """Runs make and returns its result; ``asked`` on it is what the fake Python logged, line by line."""
        self.log.write_text("")
        ours = re.compile("MAKE|MFLAGS|PYTHON|EXPERIMENT|RUN$|ARGS")
        keep = {name: value for name, value in os.environ.items() if not ours.match(name)}
        fake = {"FAKE_PLATFORM": platform, "FAKE_LOG": str(self.log), "FAKE_FAILURE": failure}
        command = ["make", "--no-print-directory", *arguments]
        environment = {**keep, **fake, "PYTHON": str(self.python), **variables}
        result = subprocess.run(command, cwd=self.folder, env=environment, text=True, capture_output=True)
        result.asked = self.log.read_text().splitlines()
        return result


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path / "a clone")


def test_lock_holds_exact_versions_with_digests_and_nothing_else():
    comment, digest = r"#[^\n]*\n", r"    --hash=sha256:[0-9a-f]{64}"
    pin = r"[a-z0-9-]+==[0-9a-z.]+( ; [a-z_]+ < '[0-9.]+')?"
    assert re.fullmatch(rf"({comment})+({pin} \\\n({digest} \\\n)*{digest}\n)+", LOCK)
    assert not re.search(r"://|/root|/home|index", "".join(re.findall(comment, LOCK)))


def test_lock_fits_every_requirement_of_pyproject():
    pinned = {name: number for name, number, _ in PIN.findall(LOCK)}
    project, backend = PROJECT["project"], PROJECT["build-system"]["requires"]
    for requirement in map(
        Requirement, [*project["dependencies"], *project["optional-dependencies"]["test"], *backend]
    ):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_the_citation_has_the_version_of_the_package():
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "vqlib.__version__"
    cited = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == vqlib.__version__


def test_lock_says_which_pythons_it_is_for_and_the_package_takes_them():
    pythons = [platform.split()[-1] for platform in PLATFORMS]
    assert pythons[0] == PROJECT["project"]["requires-python"].removeprefix(">=")
    assert {platform.rsplit(" ", 1)[0] for platform in PLATFORMS} == {"Linux x86_64 CPython"}


def test_conda_environment_has_the_versions_of_the_lock():
    environment = YAML(typ="safe").load(ROOT / "environment.yml")
    *packages, last = environment["dependencies"]
    *pins, package = last["pip"]
    assert pins == [f"{name}=={number}{marker}" for name, number, marker in PIN.findall(LOCK)]
    assert package == "-e ."
    assert f"Linux x86_64 CPython {packages[0].removeprefix('python=')}" in PLATFORMS


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="not running in the .venv that make has made")
def test_this_environment_is_the_locked_one():
    made_for = (ROOT / ".venv" / "made-for").read_text()
    if not any(f", {platform}, " in made_for for platform in PLATFORMS):
        pytest.skip("the lock is not for this platform")
    wanted = {name: number for name, number, marker in PIN.findall(LOCK) if not marker}
    assert {name: version(name) for name in wanted} == wanted


def test_make_installs_the_build_backend_then_the_lock_then_the_package(clone):
    assert clone.make(".venv").asked == LOCKED + PACKAGE
    assert clone.make(".venv").asked == []


def test_make_installs_again_only_what_changed(clone):
    clone.make(".venv")
    (clone.folder / "pyproject.toml").write_text("# changed")
    assert clone.make(".venv", PYTHON="").asked == PACKAGE
    (clone.folder / "requirements.lock").write_text("# changed\n" + SMALL_LOCK)
    assert clone.make(".venv", PYTHON="").asked == LOCKED + PACKAGE
    moved = clone.folder.rename(clone.folder.with_name("moved"))
    clone.folder, clone.log = moved, moved / "log"
    assert clone.make(".venv", PYTHON="").asked == LOCKED + PACKAGE


@pytest.mark.parametrize("step", [LOCKED[0], LOCKED[-1], PACKAGE[0]])
def test_an_interrupted_installation_is_noticed_and_finished(clone, step):
    assert clone.make(".venv", failure=step).returncode != 0
    again = clone.make(".venv")
    assert again.returncode == 0
    assert again.asked == (PACKAGE if step in PACKAGE else LOCKED + PACKAGE)


@pytest.mark.parametrize(
    "platform", ["Darwin arm64 CPython 3.12", "Linux aarch64 CPython 3.11", "Linux x86_64 CPython 3.99"]
)
def test_a_platform_without_lock_installs_from_pyproject_and_says_so_in_one_line(clone, platform):
    result = clone.make(".venv", platform=platform)
    assert result.asked == ["-m pip install -e .[test]"]
    assert result.stdout == (
        f"vqlib: requirements.lock is not for {platform}: installing from pyproject.toml, versions are not locked\n"
    )
    assert clone.make(".venv", platform=platform).stdout == ""


@pytest.mark.parametrize("number", ["2.7", "3.9", "3.10"])
def test_an_old_python_is_refused_in_one_line(clone, number):
    result = clone.make(".venv", platform=f"Linux x86_64 CPython {number}")
    message = f"vqlib: {clone.python} is Python {number}; name one from 3.11 on: make PYTHON=python3.12"
    assert result.returncode != 0
    assert result.stderr.splitlines()[0] == message
    assert not (clone.folder / ".venv").exists()


def test_a_python_that_is_not_there_is_named(clone):
    result = clone.make(".venv", PYTHON="no-such-python")
    assert result.stderr.startswith("vqlib: no-such-python does not run; name a Python from 3.11 on")


def test_targets_run_the_python_of_the_environment_whatever_the_user_has_set(clone, tmp_path):
    (tmp_path / "python").symlink_to(shutil.which("false"))
    clone.make(".venv")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    result = clone.make("test", PATH=path, PYTHONPATH=str(tmp_path), VIRTUAL_ENV=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.asked == [f"{clone.folder}/.venv/bin/python PYTHONPATH=none"]


@pytest.mark.parametrize("name", ["a clone", "another's clone"])
def test_targets_do_not_look_for_python_in_the_path(tmp_path, name):
    """make 3.81 of macOS runs simple recipes with the PATH it was started with: here, one that exports none."""
    clone = Clone(tmp_path / name)
    makefile = clone.folder / "Makefile"
    makefile.write_text(re.sub("(?m)^export PATH .*$", "", makefile.read_text()))
    for file in (".git", "params.yaml", "dvc.yaml"):
        (clone.folder / file).touch()
    for wrong in ("python", "python3"):
        (tmp_path / wrong).symlink_to(shutil.which("false"))
    clone.make(".venv")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    for target in ("repro", "repro RUN=vq-0", "study", "tour", "test", "bench", "faults", "lab", "lint"):
        result = clone.make(*target.split(), PATH=path)
        assert result.returncode == 0, (target, result.stderr)


def test_repro_outside_a_git_clone_says_so_before_anything_is_installed(clone):
    result = clone.make("repro")
    assert result.stderr.startswith("vqlib: this folder is no git clone")
    assert result.asked == []


def test_repro_names_the_experiments_when_one_is_unknown(clone):
    (clone.folder / ".git").mkdir()
    (clone.folder / "experiments" / "cifar10").mkdir(parents=True)
    (clone.folder / "experiments" / "cifar10" / "params.yaml").touch()
    result = clone.make("repro", "EXPERIMENT=nope")
    assert "; it may be one of: sample cifar10\n" in result.stderr
    assert result.asked == []


def test_repro_checks_params_yaml_and_asks_dvc_for_all_or_for_one_run(clone):
    for name in (".git", "experiments/mine"):
        (clone.folder / name).mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "experiments/mine/params.yaml"):
        (clone.folder / name).touch()
    clone.make(".venv")
    assert clone.make("repro").asked == ["-m vqlib check sample", "-m dvc repro dvc.yaml"]
    mine = clone.folder / "experiments/mine/dvc.yaml"
    refused = clone.make("repro", "EXPERIMENT=mine", failure="vqlib check mine")
    assert refused.returncode != 0 and refused.asked == ["-m vqlib check mine"] and not mine.exists()
    assert clone.make("repro", "EXPERIMENT=mine", "RUN=vq-0").asked == [
        "-m vqlib check mine vq-0",
        "-m dvc repro experiments/mine/dvc.yaml:evaluate@vq-0",
        "-m dvc repro -s experiments/mine/dvc.yaml:report",
    ]
    assert mine.is_file()


def test_readme_and_help_name_targets_that_exist(clone):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help", "checked"}
    readme = set(re.findall(r"(?:^|`|\$ )make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"repro", "test"} <= readme <= targets
    assert set(re.findall(r"^make ([a-z]+)", clone.make().stdout, re.MULTILINE)) == targets


def test_dvc_reports_nothing_and_stages_nothing():
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc" / "config")
    remote = config["core"].pop("remote")
    assert dict(config["core"]) == {"analytics": "false", "check_update": "false", "autostage": "false"}
    assert config.sections() == ["core", f"'remote \"{remote}\"'"]
    assert dict(config[f"'remote \"{remote}\"'"]) == {"url": "../weights"}  # a folder of the repository: no network


def test_git_ignores_what_is_made_and_keeps_what_is_read(tmp_path):
    shutil.copy(ROOT / ".gitignore", tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    run = functools.partial(subprocess.run, cwd=tmp_path, env=environment, text=True, capture_output=True)
    run(["git", "init"], check=True)
    made = ["data/raw/x.zip", "data/prepared/sample/train.u8", "runs/sample/vq-0/model.safetensors", ".venv/made-for",
            "build/sample/02_train.ipynb", "checkpoints/0123/last.safetensors"]  # fmt: skip
    kept = [
        "data/README.md",
        "results/sample/vq-0.json",
        "reports/sample/report.html",
        "vqlib/data/prepare.py",
        "dvc.lock",
    ]
    assert run(["git", "check-ignore", *made, *kept]).stdout.split() == made


@pytest.mark.parametrize("beside", [True, False])
def test_ci_runs_the_tests_with_the_data_beside_the_checkout(tmp_path, beside):
    (tmp_path / "a clone" / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", tmp_path / "a clone" / ".ci")
    if beside:
        (tmp_path / "shared" / "data").mkdir(parents=True)
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "make $* ${VQLIB_RAW-none}"\n')
    make.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key != "VQLIB_RAW"}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        ["bash", ".ci/run"], cwd=tmp_path / "a clone", env=environment, text=True, capture_output=True
    )
    raw = f"{tmp_path}/a clone/../shared/data" if beside else "none"
    assert result.stdout == f"make test {raw}\n"
