"""Whether results that were made again agree with the committed ones: ``python -m vqlib.compare sample``.

Another machine gives other last digits. What it gives is held against what seeds differ by: the 95 % prediction
interval of a further seed, from the committed runs of the same variant and learning rate. Priors and codecs are not
compared.
"""

import argparse
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from vqlib.errors import ParameterError, ReportError, UserError
from vqlib.files import in_one_line
from vqlib.params import ROOT, Experiment, load_experiment
from vqlib.reporting.results import all_at_8_bits
from vqlib.reporting.statistics import ENOUGH
from vqlib.reporting.tables import NOTHING, Table, number

SAME, AS_SEEDS, MORE = "the same", "as seeds differ", "more than seeds differ"
UNJUDGED, ONE_SIDE = "cannot be judged", "measured on one side alone"
DIFFERS = (MORE, ONE_SIDE)
NUMBERS: dict[str, Callable[[dict], float | None]] = {
    "test MSE": lambda found: found["test"]["mse"],
    "PSNR, dB": lambda found: found["test"]["psnr"],
    "bits per pixel, codes": lambda found: found["rate"].get("bpp_bitstream"),
    "bits per pixel, all at 8 bits": lambda found: (
        all_at_8_bits(found["rate"]) if found["rate"].get("precisions") else None
    ),
    "perplexity": lambda found: found["test"].get("perplexity"),
}
PROVENANCE = ("hardware", "precision", "torch", "code", "data", "steps", "batch_size", "width", "learning_rate")
DIGITS = 4  # that results are rounded to


def compare(name: str, asked: Sequence[str] = (), revision: str = "HEAD", root: Path = ROOT) -> tuple[str, bool]:
    """The comparison as text, and whether a number differs by more than seeds do.

    ``asked`` names runs, none all of the experiment; ``revision`` is a commit, branch or tag.

    Raises:
        ParameterError: there is no such experiment, run or revision.
        ReportError: a result is missing or damaged, or ``root`` is in no git repository.
    """
    experiment = load_experiment(name, root)
    for run in asked:
        experiment.run(run)
    commit = resolve(revision, root)
    there = committed(experiment, commit, revision)
    here = {run: path.read_bytes() for run in experiment.runs
            if (path := experiment.results / f"{run}.json").is_file()}  # fmt: skip
    for run in asked:
        for files, missing in (
            (there, f"missing at {revision}; name a --with at which it is there"),
            (here, "missing here; evaluate the run first"),
        ):
            if run not in files:
                raise ReportError(f"results/{name}/{run}.json: {missing}")
    chosen = list(dict.fromkeys(asked or experiment.runs))
    both = [run for run in chosen if run in there and run in here]
    if not both:
        raise ReportError(f"results/{name}: no run has results here and at {revision}, so nothing can be compared")
    again = [run for run in both if here[run] != there[run]]
    before = {run: parsed(content, f"results/{name}/{run}.json at {revision}") for run, content in there.items()}
    now = {run: parsed(here[run], f"results/{name}/{run}.json") for run in again}

    parts = [f"{name}: results here against {revision} ({commit[:10]})\n"]
    said: list[str] = []
    if again:
        table = comparison(experiment, before, now)
        said = list(table.values["verdict"])
        parts += [as_text(table), *provenance(before, now), ""]
    same = len(both) - len(again)
    parts.append(f"{counted(len(again), 'run')} made again; {counted(same, 'run')} with the very file of {revision}")
    for files, place in ((there, f"at {revision}"), (here, "here")):
        if lacking := [run for run in chosen if run not in files and run in {**there, **here}]:
            parts.append(f"missing {place}, so not compared: {', '.join(lacking)}")
    if said:
        parts.append(summary(said))
    return "\n".join(parts) + "\n", any(verdict in DIFFERS for verdict in said)


def resolve(revision: str, root: Path) -> str:
    """The full name of the commit that ``revision`` names."""
    inside = _git(root, "rev-parse", "--is-inside-work-tree")
    if inside.returncode or inside.stdout.strip() != b"true":
        reason = inside.stderr.decode(errors="replace").strip().partition("\n")[0] or "no working tree"
        raise ReportError(f"{root}: not a git repository that can be read ({reason}); committed results are "
                          "looked for in git")  # fmt: skip
    found = _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found.returncode:
        raise ParameterError(f"--with is {revision!r}; it must be a commit, branch or tag of the git repository {root}")
    return found.stdout.decode().strip()


def committed(experiment: Experiment, commit: str, revision: str) -> dict[str, bytes]:
    """The file of every run of the experiment that has one at ``commit``."""
    folder = f"results/{experiment.name}"
    listed = _git(experiment.root, "ls-tree", "-z", "--name-only", commit, f"{folder}/").stdout.decode().split("\0")
    runs = [run for run in experiment.runs if f"{folder}/{run}.json" in listed]
    if not runs:
        raise ReportError(f"{folder}: no run has results at {revision}; name a --with at which there are some")
    return {run: _git(experiment.root, "show", f"{commit}:./{folder}/{run}.json").stdout for run in runs}


def parsed(content: bytes, where: str) -> dict[str, Any]:
    """One run's JSON.

    Raises:
        ReportError: it is damaged or lacks a number.
    """
    try:
        found = json.loads(content)
        for section in ("test", "rate", "provenance"):
            found[section].keys()
        for read in NUMBERS.values():
            value = read(found)
            if value is not None and not isinstance(value, (int, float)):
                raise TypeError(f"{value!r} where a number belongs")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ReportError(f"{where}: not the result of a run ({type(error).__name__}: {reason}); "
                          "evaluate the run again, or get the file from git") from None  # fmt: skip
    return found


def comparison(experiment: Experiment, before: dict[str, dict], now: dict[str, dict]) -> Table:
    """A row for each number of each run in ``now``; ``values`` has relative differences and a column ``verdict``."""
    shown, values = [], []
    for run, found in now.items():
        title = run
        for name, read in NUMBERS.items():
            old, new = _value(read(before[run])), _value(read(found))
            if old is None and new is None:
                continue
            of_seeds = [
                value for one in seeds(experiment, run, before) if (value := _value(read(before[one]))) is not None
            ]
            half = half_prediction_interval(np.array(of_seeds))
            mean = float(np.mean(of_seeds)) if of_seeds else math.nan
            verdict = judged(old, new, mean, half)
            difference = (new - old) / abs(old) if old and new is not None else math.nan
            told = f"{verdict}: {counted(len(of_seeds), 'seed')}" if verdict == UNJUDGED else verdict
            values.append([run, name, old, new, difference, half, verdict])
            further = NOTHING if math.isnan(half) else f"{number(mean, DIGITS)} ± {number(half, 2)}"
            shown.append([title, name, number(old, DIGITS), number(new, DIGITS), _percent(difference), further, told])
            title = ""
    columns = ["run", "number", "committed", "here", "difference", "a further seed", "verdict"]
    return Table(pd.DataFrame(shown, columns=columns), pd.DataFrame(values, columns=columns))


def seeds(experiment: Experiment, run: str, among: Iterable[str]) -> list[str]:
    """The runs of ``run``'s variant at its learning rate, by params.yaml, one for each seed."""
    model = experiment.runs[run]
    alike = [experiment.runs[one] for one in among]
    alike = [one for one in alike if one.variant == model.variant and one.learning_rate == model.learning_rate]
    return list({one.seed: one.name for one in alike}.values())


def half_prediction_interval(values: np.ndarray) -> float:
    """Half the 95 % prediction interval of one more value (Student's t), NaN for fewer than ``ENOUGH``."""
    count = len(values)
    if count < ENOUGH:
        return math.nan
    return float(stdtrit(count - 1, 0.975) * values.std(ddof=1) * math.sqrt(1 + 1 / count))


def judged(old: float | None, new: float | None, mean: float, half: float) -> str:
    """Whether ``new`` lies within ``half`` of the seeds' mean; one unit of the last digit is never more than seeds
    differ by."""
    if old is None or new is None:
        return ONE_SIDE
    if old == new:
        return SAME
    if math.isnan(half):
        return UNJUDGED
    unit = 10.0 ** (math.floor(math.log10(max(abs(old), abs(new)))) - DIGITS + 1)
    return AS_SEEDS if abs(new - mean) <= half or abs(new - old) <= unit * (1 + 1e-6) else MORE


def provenance(before: dict[str, dict], now: dict[str, dict]) -> list[str]:
    """A line for each key of the provenance in which a run differs, with the values of most runs first."""
    lines = []
    for key in PROVENANCE:
        pairs = Counter((str(before[run]["provenance"].get(key)), str(found["provenance"].get(key)))
                        for run, found in now.items())  # fmt: skip
        other = [(pair, count) for pair, count in pairs.most_common() if pair[0] != pair[1]]
        if other:
            (old, new), _ = other[0]
            more = f", and {len(other) - 1} other pairs" if len(other) > 2 else ", and another pair" * (len(other) - 1)
            runs = sum(count for _, count in other)
            lines.append(f"{key} differs in {runs} of {counted(len(now), 'run')}: {old} committed, {new} here{more}")
    return ["", *lines] if lines else []


def summary(said: list[str]) -> str:
    """How many numbers got which verdict."""
    counts = Counter(said)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (SAME, AS_SEEDS, MORE, UNJUDGED, ONE_SIDE)
                     if counts[verdict])  # fmt: skip
    text = f"of {counted(len(said), 'number')}: {told}"
    if counts[MORE]:
        of = counts[AS_SEEDS] + counts[MORE]
        text += f"\n{counts[MORE]} of the {of} judged; about one in 20 would be if runs here were but other seeds"
    return text


def as_text(table: Table) -> str:
    """Columns side by side for a terminal: numbers to the right, words to the left."""
    cells = [list(table.shown.columns), *table.shown.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = (0, 1, len(widths) - 1)
    return "\n".join(
        "  ".join(cell.ljust(width) if place in words else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in cells
    )  # fmt: skip


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _value(value: float | None) -> float | None:
    """A finite float, else None."""
    return None if value is None or not math.isfinite(value) else float(value)


def _percent(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{100 * value:+.2f} %"


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    except FileNotFoundError:
        raise ReportError("git: not found on this machine; committed results are looked for in git") from None


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 where nothing differs by more than seeds do, 1 where something does, 2 with one line
    on standard error for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m vqlib.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("experiment")
    parser.add_argument("runs", nargs="*", metavar="run", help="<variant>-<seed>; all when none is named")
    parser.add_argument("--with", dest="revision", default="HEAD", help="a commit, branch or tag; HEAD when not given")
    given = parser.parse_args(arguments)
    try:
        with in_one_line(ROOT / "results"):
            text, differs = compare(given.experiment, given.runs, given.revision, ROOT)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
