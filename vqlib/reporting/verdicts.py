"""The verdicts as a table and as text, for the report of one experiment or of all together."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from vqlib.reporting.claims import CLAIMS, DISAGREEMENTS
from vqlib.reporting.exhibit import shortened
from vqlib.reporting.html import anchor
from vqlib.reporting.judging import Claim, Verdict
from vqlib.reporting.tables import NOTHING, Table

RULES = "The rules of the verdicts"
Link = Callable[[str, str], str | None]  # (experiment, exhibit's name) -> Markdown, None where the report lacks it


def verdict_table(
    claims: Sequence[Claim], found: Mapping[str, Verdict], link: Link, experiments_named: bool = False
) -> Table:
    """A row for every claim: what it says, the verdict, its evidence with runs and figures or tables.

    ``experiments_named`` is for a page over several: then the experiment of the runs is said.

    Raises:
        KeyError: a claim has no verdict.
    """
    shown = pd.DataFrame(
        {
            "claim": f"**{claim.name}**",
            "what it says": claim.statement,
            "verdict": f"**{found[claim.name].said}**",
            "evidence": evidence(found[claim.name], link, experiments_named),
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


def evidence(verdict: Verdict, link: Link, experiments_named: bool) -> str:
    """The evidence in sentences, then where it is shown and of which runs."""
    sources = [told for told in (links(verdict, link), runs_told(verdict, experiments_named)) if told != NOTHING]
    return f"{verdict.evidence} ({'; '.join(sources)})" if sources else verdict.evidence


def runs_told(verdict: Verdict, experiments_named: bool) -> str:
    """``vq-0..2, projected-0``; by experiment where there are several."""
    told = []
    for experiment in verdict.experiments:
        names = shortened([run for of, run in verdict.runs if of == experiment])
        prefix = f"`{experiment}`: " if experiments_named or len(verdict.experiments) > 1 else ""
        told.append(prefix + ", ".join(names))
    return "; ".join(told) or NOTHING


def links(verdict: Verdict, link: Link) -> str:
    found = [link(experiment, name) for experiment in verdict.experiments for name in verdict.exhibits]
    return ", ".join(dict.fromkeys(filter(None, found))) or NOTHING


def section(found: Mapping[str, Verdict], link: Link, experiments_named: bool = False) -> str:
    """Both tables under their headings, the page and the code being those that the paper came with."""

    def told(claims: Sequence[Claim]) -> str:
        table = verdict_table(claims, found, link, experiments_named)
        short = dataclasses.replace(table, shown=table.shown.drop(columns="evidence"))
        because = "".join(f"- **{name.strip('*')}**: {text}\n" for name, text in
                          zip(table.shown["claim"], table.shown["evidence"], strict=True))  # fmt: skip
        return f"{short.markdown()}\nThe evidence:\n\n{because}"

    return "\n".join(
        [
            "## What became of each claim\n",
            told(CLAIMS),
            "## Where paper, page and code disagree\n",
            "The page is the web page that presented the paper, the code what was released with it.\n",
            told(DISAGREEMENTS),
            f"Every verdict is computed from results/ by [the rules](#{anchor(RULES)}) below. They were written down "
            "while the first runs were under way (LOG.md, 2026-11-24) and amended since, mostly with results in view; "
            "LOG.md lists how often, with the reasons.\n",
        ]
    )


def rules() -> str:
    """The rule of every claim, as a list under its heading."""
    lines = "".join(f"- **{claim.name}.** {claim.rule}\n" for claim in (*CLAIMS, *DISAGREEMENTS))
    return (
        f"## {RULES}\n\n{lines}\nIntervals are 95 %: Student's t of a mean over seeds, Welch's of the logarithm of "
        "a ratio of means. An experiment with enough seeds judges, and of several the one nearest to the paper, by "
        "width, then by steps (for C2, where late peaks matter, by steps). LOG.md has the rules in full.\n"
    )
