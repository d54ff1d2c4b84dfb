"""The page reports/benchmarks/README.md and its figures, from results/benchmarks/*.json alone; params.yaml says only
which variants are not among them."""

import json
from pathlib import Path
from typing import Any

from benchmarks import sections
from benchmarks.measure import setting
from benchmarks.text import middle
from vqlib.errors import ReportError
from vqlib.files import write_atomically
from vqlib.reporting.style import image_bytes
from vqlib.reporting.tables import number

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
TITLES = {
    "step": "1. The training step against a straightforward loop",
    "bottlenecks": "2a. What each bottleneck costs",
    "search": "2b. Nearest-code search",
    "around": "3. Everything around training",
    "growth": "4. Growth: images a second and memory against each size",
    "prior_sampling": "5. Drawing new codes from a prior",
}
NO_GPU = """\
**No GPU was at hand.** Every part has a mode for one (`python -m benchmarks --device cuda`), which has not been run: it
is untested, and no number below says anything about a GPU.
"""
Results = dict[tuple[str, str], dict[str, Any]]  # by (part, device)


def write_page(results: Path, into: Path) -> Path:
    """Draw everything that there are results for; returns the page's path.

    Raises:
        ReportError: there are none, or a file is damaged or no result.
    """
    text, figures = page(load(results))
    for name, figure in figures.items():
        for kind in ("png", "pdf"):
            write_atomically(into / "figures" / f"{name}.{kind}", image_bytes(figure, kind))
    write_atomically(into / "README.md", text.encode())
    return into / "README.md"


def load(results: Path) -> Results:
    """Every result of the folder."""
    found: Results = {}
    for file in sorted(results.glob("*.json")):
        part, _, device = file.stem.rpartition("_")
        if part not in TITLES or device not in DEVICES:
            may_be = f"<part>_<device>, parts being {', '.join(TITLES)}, devices {', '.join(DEVICES)}"
            raise ReportError(f"{file}: no part of the benchmarks is named so; move it away, or name it {may_be}")
        again = f"measure it again: python -m benchmarks {part} --device {device}"
        try:
            result = json.loads(file.read_text())
        except ValueError:
            raise ReportError(f"{file} is damaged, it is not JSON; {again}") from None
        if not isinstance(result, dict) or (result.get("part"), result.get("device")) != (part, device):
            raise ReportError(f"{file} holds no result of {part} on {device}; {again}")
        found[part, device] = result
    if not found:
        raise ReportError(f"{results} has no results to draw; measure first: python -m benchmarks")
    return found


def page(found: Results) -> tuple[str, dict]:
    """The page as Markdown, and figures by name."""
    parts = ["# How fast it is, and what costs what\n", _head(found)]
    figures = {}
    for part, title in TITLES.items():
        for device, word in DEVICES.items():
            if result := found.get((part, device)):
                text, drawn = getattr(sections, part)(result)
                figures |= {f"{name}_{device}": figure for name, figure in drawn.items()}
                pictures = "".join(f"\n![{name}](figures/{name}_{device}.png)\n" for name in drawn)
                made = (
                    f"\n<sub>`{result['command']}`: results/benchmarks/{part}_{device}.json; {result['hardware']}, "
                    f"torch {result['torch']}, networks in {result['precision']}; {number(result['wall'], 3)} s to "
                    "measure.</sub>\n"
                )
                parts.append(f"## {title} ({word})\n\n{text}{pictures}{made}")
    return "\n".join(parts), figures


def _head(found: Results) -> str:
    text = (
        "Measured by `make bench` (`python -m benchmarks`); every number and figure is drawn from "
        "[results/benchmarks](../../results/benchmarks) alone. Rivals take turns in one process, so that what disturbs "
        "one disturbs all; times are medians, with quartiles where they matter.\n"
    )
    text += "".join(f"\n{sentence}\n" for device in DEVICES if (sentence := _apart(paper_steps(found, device))))
    return text if any(device == "cuda" for _, device in found) else f"{text}\n{NO_GPU}"


def paper_steps(found: Results, device: str) -> dict[str, float]:
    """Seconds of a step of ``vq`` at the paper's size, the median of each section that measured it."""
    paper = setting()

    def of(part: str) -> dict[str, Any]:
        return found.get((part, device), {})

    rows = [("step", row, row["seconds"]["ours"]) for row in of("step").get("speed", [])]
    rows += [("bottlenecks", row, row["seconds"]["vq"]) for row in of("bottlenecks").get("steps", [])]
    rows += [("around", row, [row["step"]]) for row in [of("around").get("paper")] if row]
    rows += [("growth", row, row["seconds"]) for row in of("growth").get("rows", [])]
    same = [(part, times) for part, row, times in rows if all(row[key] == value for key, value in paper.items()
                                                              if key != "learning_rate")]  # fmt: skip
    return {TITLES[part].split(".")[0]: middle(times) for part, times in same}


def _apart(steps: dict[str, float]) -> str:
    if len(steps) < 2:
        return ""
    low, high = min(steps.values()), max(steps.values())
    listed = ", ".join(f"{value:.4g} s in section {section}" for section, value in steps.items())
    return (
        f"The same step, `vq` at the paper's size, is measured in several sections, minutes apart: {listed}. So times "
        f"of different sections differ by up to {high / low - 1:.0%} for no reason of ours; compare within a section."
    )
