"""Write requirements.lock and environment.yml from pyproject.toml; `make lock` calls this and needs uv on the PATH.

Versions that the lock has are kept as long as they fit. `make lock ARGS=--upgrade` moves all of them, and
`make lock ARGS="--upgrade-package numpy"` moves one: ARGS goes to uv.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # every pinned package has a wheel for these, or is pure Python
HEADER = """\
# Written by `make lock` from pyproject.toml, its tests' requirements and its build backend; not by hand.
# Exact versions with the digests of their files, for these platforms; tools/venv.sh reads the list:
{platforms}
"""
CONDA = """\
# The versions of requirements.lock for conda, on Linux x86-64; written by `make lock`, not by hand.
# conda env create -f environment.yml && conda activate vqlib && dvc repro
name: vqlib
channels: [conda-forge, nodefaults]
dependencies:
  - python={python}
  - pip
  - pip:
{pins}
      - -e .
"""


def compile_lock(arguments: list[str]) -> str:
    """What uv resolves, one ``name==version`` with its hashes after the other, for the platform of [tool.uv]."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    uv = shutil.which("uv") or sys.exit("make lock needs uv on the PATH: pip install uv")
    options = f"--universal --fork-strategy fewest --python-version {PYTHONS[0]} --all-extras --generate-hashes"
    quiet = "--quiet --no-header --no-annotate --output-file requirements.lock"
    command = [uv, "pip", "compile", *options.split(), *quiet.split(), *arguments, "pyproject.toml", "-"]
    backend = "\n".join(project["build-system"]["requires"])
    # Paths are relative to ROOT, so that none of this machine can reach the lock.
    subprocess.run(command, cwd=ROOT, input=backend, text=True, check=True, stdout=subprocess.DEVNULL)
    (platform,) = project["tool"]["uv"]["environments"]
    return re.sub(rf" (;|and) {re.escape(platform)}", "", (ROOT / "requirements.lock").read_text())


def pins(lock: str) -> list[str]:
    """``name==version``, with its marker where it has one."""
    return re.findall(r"^([^\s#][^\\\n]*?) \\$", lock, flags=re.MULTILINE)


if __name__ == "__main__":
    lock = compile_lock(sys.argv[1:])
    platforms = "\n".join(f"#   Linux x86_64 CPython {python}" for python in PYTHONS)
    (ROOT / "requirements.lock").write_text(HEADER.format(platforms=platforms) + lock)
    lines = "\n".join(f"      - {pin}" for pin in pins(lock))
    (ROOT / "environment.yml").write_text(CONDA.format(python=PYTHONS[0], pins=lines))
