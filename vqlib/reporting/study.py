"""The page over all experiments, reports/README.md: what was found, the verdicts, and where each number stands.

Drawn from results/ alone, like the reports that it links to. README.md repeats the findings as far as their first
heading, word for word.
"""

import argparse
import re
import sys
from pathlib import Path

from vqlib.errors import ReportError, UserError
from vqlib.files import in_one_line, write_atomically
from vqlib.params import ROOT, experiment_names, load_experiment
from vqlib.reporting import verdicts
from vqlib.reporting.claims import CLAIMS, DISAGREEMENTS, judge_all
from vqlib.reporting.exhibits import all_exhibits
from vqlib.reporting.findings import fill_in_study, template
from vqlib.reporting.judging import judges
from vqlib.reporting.report import left_out_runs, linked
from vqlib.reporting.results import Results, load_results

FINDINGS = "results/FINDINGS.md"  # written by hand, its numbers as placeholders, its links relative to the root
BLOCK = re.compile(rf"(<!-- findings from {FINDINGS} -->\n).*?(<!-- end -->)", re.DOTALL)


def write_study(root: Path = ROOT) -> Path:
    """Write reports/README.md with its tables and return it.

    Raises:
        ReportError: results are damaged, or FINDINGS.md asks for a number that they do not hold.
    """
    experiments = judging_experiments(root)
    found = judge_all(experiments)
    link = _links(experiments)
    tables = {"claims": verdicts.verdict_table(CLAIMS, found, link, True),
              "disagreements": verdicts.verdict_table(DISAGREEMENTS, found, link, True)}  # fmt: skip
    folder = root / "reports"
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", table.csv().encode())
        write_atomically(folder / f"{name}.tex", table.latex().encode())
    summary, details = (_from_reports(text) for text in in_two(findings(root, experiments)))
    listed = "".join(f"- [{one.experiment.title}]({one.experiment.name}/README.md), {counted(one)}\n"
                     for one in experiments)  # fmt: skip
    left_out = "".join(f"`{one.experiment.name}`: {told}\n" for one in experiments if (told := left_out_runs(one)))
    parts = [
        "# What became of the paper's claims\n",
        left_out,
        summary,
        verdicts.section(found, link, True),
        details,
        verdicts.rules(),
        f"## The reports behind it\n\n{listed}\nThe tables are here as [claims.csv](claims.csv), "
        "[claims.tex](claims.tex), [disagreements.csv](disagreements.csv) and "
        "[disagreements.tex](disagreements.tex).\n",
    ]
    write_atomically(folder / "README.md", "\n".join(part for part in parts if part).encode())
    return folder / "README.md"


def counted(results: Results) -> str:
    """``17 runs, and 3 at other learning rates``"""
    others = len(results.grid) - len(results.runs)
    return f"{len(results.runs)} runs" + (f", and {others} at other learning rates" if others else "")


def judging_experiments(root: Path = ROOT) -> list[Results]:
    """Every experiment with results that judge, the nearest to the paper's setting first."""
    names = [name for name in experiment_names(root) if load_experiment(name, root).judges and has_results(name, root)]
    return judges([load_results(name, root) for name in names])


def has_results(name: str, root: Path) -> bool:
    """Whether any run of the experiment was evaluated."""
    experiment = load_experiment(name, root)
    return any((experiment.results / f"{run}.json").is_file() for run in experiment.runs)


def findings(root: Path, experiments: list[Results]) -> str:
    """results/FINDINGS.md with its numbers; empty where none was written."""
    path = root / FINDINGS
    return fill_in_study(template(path), experiments, FINDINGS).strip() + "\n" if path.is_file() else ""


def in_two(text: str) -> tuple[str, str]:
    """What stands before its first heading, and the rest: README.md has the first alone."""
    head, heading, rest = text.partition("\n## ")
    return f"{head.strip()}\n", f"{heading.strip()} {rest}" if heading else ""


def write_readme(root: Path = ROOT) -> Path:
    """Put the findings, as far as their first heading, between README.md's two marks.

    Raises:
        ReportError: README.md lacks the marks.
    """
    path = root / "README.md"
    text = path.read_text()
    if not BLOCK.search(text):
        raise ReportError(f"README.md lacks the lines <!-- findings from {FINDINGS} --> and <!-- end -->")
    filled, _ = in_two(findings(root, judging_experiments(root)))
    write_atomically(path, BLOCK.sub(lambda marks: f"{marks[1]}{filled}{marks[2]}", text).encode())
    return path


def _links(experiments: list[Results]) -> verdicts.Link:
    """To figures and tables of the experiments' reports, by the number that they have there."""
    names = [results.experiment.name for results in experiments]
    of = {name: linked(all_exhibits(one), f"{name}/README.md") for name, one in zip(names, experiments, strict=True)}
    return lambda experiment, name: of[experiment](experiment, name)


def _from_reports(text: str) -> str:
    """Links relative to the root, as seen from reports/; what the study itself links is below reports/ already."""
    text = text.replace("](reports/README.md#", "](#")
    return re.sub(r"\]\((?!\w+:|#)", "](../", text).replace("](../reports/", "](")


def main(arguments: list[str] | None = None) -> int:
    """``python -m vqlib.reporting.study``; with ``--readme`` it also puts the findings into README.md."""
    parser = argparse.ArgumentParser(prog="python -m vqlib.reporting.study", description=__doc__)
    parser.add_argument("--readme", action="store_true", help="also put the findings into README.md")
    given = parser.parse_args(arguments)
    try:
        with in_one_line(ROOT / "reports"):
            print(write_study())
            if given.readme:
                print(write_readme())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
