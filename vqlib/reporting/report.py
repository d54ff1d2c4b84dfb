"""The report of an experiment, from results/ and params.yaml alone: README.md, report.html, figures and tables.

README.md is the one source; report.html is made from it. Nothing depends on time or place: the same results give the
same bytes.
"""

from pathlib import Path

import pandas as pd

from vqlib.files import write_atomically
from vqlib.params import experiment_names
from vqlib.reporting import verdicts
from vqlib.reporting.claims import CLAIMS, DISAGREEMENTS, judge_all
from vqlib.reporting.claims_training import stability_of
from vqlib.reporting.exhibit import Exhibit, shared, shortened
from vqlib.reporting.findings import fill_in, template
from vqlib.reporting.html import anchor, page
from vqlib.reporting.judging import judges
from vqlib.reporting.results import Results
from vqlib.reporting.style import image_bytes
from vqlib.reporting.tables import Table, plain

JUDGES_NOTHING = """\
This experiment shows how things work and judges nothing. Its images are crops of a few photographs, its network is
narrow and its training short, so neither an error nor a ratio in it says anything about the paper's claims; the
experiments on ImageNet's images are for those.
"""


def write_report(results: Results, exhibits: dict[str, Exhibit]) -> Path:
    """Write reports/<experiment>/ and return that folder. Files of an earlier report that this one lacks are removed.

    ``exhibits`` are all_exhibits(results), by label.

    Raises:
        ReportError: FINDINGS.md asks for a number that the results do not hold.
    """
    markdown = report_markdown(results, exhibits)
    files: dict[str, bytes] = {"README.md": markdown.encode()}
    for exhibit in exhibits.values():
        if isinstance(exhibit.content, Table):
            files |= table_files(exhibit.content, exhibit.name)
        else:
            files |= {f"figures/{exhibit.name}.{kind}": image_bytes(exhibit.content, kind) for kind in ("png", "pdf")}
    if judges([results]):
        found, link = judge_all([results]), linked(exhibits, where="../README.md")
        for name, claims in (("claims", CLAIMS), ("disagreements", DISAGREEMENTS)):
            files |= table_files(verdicts.verdict_table(claims, found, link), name)
    runs = results.grid.merge(stability_of(results, results.grid), on=["variant", "run"])
    files["tables/runs.csv"] = single_values(runs).to_csv(index=False, lineterminator="\n").encode()
    images = {name: content for name, content in files.items() if name.endswith(".png")}
    files["report.html"] = page(results.experiment.title, markdown, images).encode()

    folder = results.experiment.reports
    for name, content in files.items():
        write_atomically(folder / name, content)
    for path in [*folder.glob("figures/*"), *folder.glob("tables/*")]:
        if path.relative_to(folder).as_posix() not in files:
            path.unlink()
    return folder


def single_values(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the columns that hold lists, such as the use of each code: a CSV has no form for them."""
    return runs[[name for name in runs if not runs[name].map(lambda cell: isinstance(cell, (list, dict))).any()]]


def judged(results: Results, exhibits: dict[str, Exhibit]) -> str:
    """The verdicts that this experiment's runs allow, as two tables; empty where it judges nothing."""
    return verdicts.section(judge_all([results]), linked(exhibits)) if judges([results]) else ""


def table_files(table: Table, name: str) -> dict[str, bytes]:
    """A table in its three forms, by path inside the report."""
    texts = {"md": table.markdown(), "csv": table.csv(), "tex": table.latex()}
    return {f"tables/{name}.{kind}": text.encode() for kind, text in texts.items()}


def linked(exhibits: dict[str, Exhibit], where: str = "") -> verdicts.Link:
    """From the name of an exhibit to a link in the report at ``where``: "[Figure 1](#its-heading), ...". None where
    there is no such exhibit."""
    found: dict[str, list[str]] = {}
    for label, exhibit in exhibits.items():
        found.setdefault(exhibit.name, []).append(f"[{label}]({where}#{anchor(exhibit.heading)})")
    return lambda _, name: ", ".join(found[name]) if name in found else None


def report_markdown(results: Results, exhibits: dict[str, Exhibit]) -> str:
    """The text of the report; ``exhibits`` by label, as ``all_exhibits`` returns them."""
    parts = [f"# {results.experiment.title}\n", describe(results), left_out_runs(results), findings(results)]
    parts.append(judged(results, exhibits))
    parts += [f"## {exhibit.heading}\n\n{exhibit.markdown(label)}" for label, exhibit in exhibits.items()]
    parts += [verdicts.rules()] if judges([results]) else []
    parts.append(
        "## Files\n\n"
        "[figures/](figures/) holds every figure as PNG and PDF, [tables/](tables/) every table as CSV, LaTeX and "
        "Markdown. tables/runs.csv has the numbers of every run, of those at other learning rates too; "
        "what is a list, such as the use of each code, is in "
        f"`results/{results.experiment.name}/` alone.\n"
    )
    return "\n".join(part for part in parts if part)


def describe(results: Results) -> str:
    """What the experiment is, in one paragraph."""
    experiment = results.experiment
    data, size = experiment.data, experiment.data.image_size

    def told(column: str) -> str:
        return " or ".join(plain(value) for value in dict.fromkeys(results.runs[column]))

    return (
        f"Experiment `{experiment.name}`: {len(results.models)} models in {len(results.runs)} runs, each trained for "
        f"{told('provenance.steps')} steps of {told('provenance.batch_size')} images and tested on "
        f"{told('test.images')} others. Data: `{data.source}`, {told('provenance.train_images')} training images of "
        f"{size} x {size} pixels (resizing `{data.resize}`). Network: width {told('provenance.width')}, "
        f"{experiment.network.num_embeddings} codes unless a variant sets its own. All that stands here is drawn from "
        f"`results/{experiment.name}/` and the experiment's `params.yaml`.\n\n"
        f"Runs (variant-seed), unless a figure or table says otherwise: {', '.join(shortened(results.runs_of()))}. "
        f"Their settings: {shared(results)}.\n"
    )


def left_out_runs(results: Results) -> str:
    """One line that names what is left out, and why; empty when nothing is."""
    if not results.left_out:
        return ""
    lacking = ", ".join(f"`{name}` ({why})" for name, why in results.left_out.items())
    return f"**Left out of this report:** {lacking}.\n"


def findings(results: Results) -> str:
    """results/<name>/FINDINGS.md with its placeholders filled in; for the root, that it judges nothing."""
    experiment = results.experiment
    path = experiment.results / "FINDINGS.md"
    if path.is_file():
        text = fill_in(template(path), results, f"results/{experiment.name}/FINDINGS.md").strip() + "\n"
        return text if text.startswith("#") else f"## Findings\n\n{text}"
    if experiment.name == experiment_names(experiment.root)[0]:
        return f"## What it shows\n\n{JUDGES_NOTHING}"
    where = f"results/{experiment.name}/FINDINGS.md"
    return f"## Findings\n\nNone have been written down yet, in `{where}`: the numbers stand without a judgement.\n"
