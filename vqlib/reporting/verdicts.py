"""The verdicts as a table and as text, for the report of one experiment or of all together."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from vqlib.reporting.claims import CLAIMS, DISAGREEMENTS
from vqlib.reporting.html import anchor
from vqlib.reporting.judging import Claim, Verdict
from vqlib.reporting.tables import NOTHING, Table

MOST_NAMED = 6  # runs of one experiment in a cell; more are counted by variant
Link = Callable[[str, str], str | None]  # (experiment, exhibit's name) -> Markdown, None where the report lacks it


def verdict_table(claims: Sequence[Claim], found: Mapping[str, Verdict], link: Link) -> Table:
    """A row for every claim: what it says, the verdict, its evidence with runs and figures or tables.

    Raises:
        KeyError: a claim has no verdict.
    """
    shown = pd.DataFrame(
        {
            "": f"**{claim.name}**",
            "claim": claim.statement,
            "verdict": f"**{found[claim.name].said}**",
            "evidence": found[claim.name].evidence,
            "runs": runs_told(found[claim.name]),
            "shown in": links(found[claim.name], link),
        }
        for claim in claims
    )
    values = pd.DataFrame(
        {
            "claim": claim.name,
            "statement": claim.statement,
            "rule": claim.rule,
            "verdict": found[claim.name].said,
            "evidence": found[claim.name].evidence,
            "runs": " ".join(f"{experiment}/{run}" for experiment, run in found[claim.name].runs),
            "exhibits": " ".join(found[claim.name].exhibits),
        }
        for claim in claims
    )
    return Table(shown, values, words=True)


def runs_told(verdict: Verdict) -> str:
    """``vq-0..2, projected-0``; by experiment where there are several."""
    told = []
    for experiment in verdict.experiments:
        names = shortened([run for of, run in verdict.runs if of == experiment])
        prefix = f"{experiment}: " if len(verdict.experiments) > 1 else ""
        told.append(prefix + ", ".join(names))
    return "; ".join(told) or NOTHING


def shortened(runs: Sequence[str]) -> list[str]:
    """Consecutive seeds of a variant as one: vq-0, vq-1, vq-2 -> vq-0..2."""
    seeds: dict[str, list[int]] = {}
    others = []
    for run in runs:
        variant, _, seed = run.partition("-")
        if seed.isdigit():
            seeds.setdefault(variant, []).append(int(seed))
        else:
            others.append(run)
    told = []
    for variant, numbers in seeds.items():
        numbers.sort()
        together = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
        told += [f"{variant}-{numbers[0]}..{numbers[-1]}"] if together else [f"{variant}-{one}" for one in numbers]
    return told + others


def links(verdict: Verdict, link: Link) -> str:
    found = [link(experiment, name) for experiment in verdict.experiments for name in verdict.exhibits]
    return ", ".join(dict.fromkeys(filter(None, found))) or NOTHING


def section(found: Mapping[str, Verdict], link: Link) -> str:
    """Both tables under their headings."""
    return "\n".join(
        [
            "## What became of each claim\n",
            verdict_table(CLAIMS, found, link).markdown(),
            "## Where paper, page and code disagree\n",
            verdict_table(DISAGREEMENTS, found, link).markdown(),
            f"Every verdict is computed from results/ by [the rules](#{anchor(RULES)}) below, which were written down "
            "before the runs had ended (LOG.md, 2026-11-24).\n",
        ]
    )


RULES = "The rules of the verdicts"


def rules() -> str:
    """The rule of every claim, as a list under its heading."""
    lines = "".join(f"- **{claim.name}.** {claim.rule}\n" for claim in (*CLAIMS, *DISAGREEMENTS))
    return (
        f"## {RULES}\n\n{lines}\nIntervals are 95 %: Student's t of a mean over seeds, Welch's of the logarithm of "
        "a ratio of means. An experiment with enough seeds judges, and of several the one nearest to the paper, by "
        "width, then by steps. LOG.md has the rules in full.\n"
    )
