"""The page reports/benchmarks/README.md and its figures, from results/benchmarks/*.json alone."""

import json
from pathlib import Path
from typing import Any

from benchmarks.sections import around, bottlenecks, growth, search, step
from vqlib.files import write_atomically
from vqlib.reporting.style import image_bytes
from vqlib.reporting.tables import number

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
NO_GPU = """\
**No GPU was at hand.** Every part has a mode for one (`python -m benchmarks --device cuda`), which has not been run: it
is untested, and no number below says anything about a GPU.
"""
Results = dict[tuple[str, str], dict[str, Any]]  # by (part, device)


def write_page(results: Path, into: Path) -> Path:
    """Draw everything that there are results for; returns the page's path."""
    found: Results = {}
    for file in sorted(results.glob("*.json")):
        part, device = file.stem.rsplit("_", 1)
        found[part, device] = json.loads(file.read_text())
    text, figures = page(found)
    for name, figure in figures.items():
        for kind in ("png", "pdf"):
            write_atomically(into / "figures" / f"{name}.{kind}", image_bytes(figure, kind))
    write_atomically(into / "README.md", text.encode())
    return into / "README.md"


def page(found: Results) -> tuple[str, dict]:
    """The page as Markdown, and figures by name."""
    parts = ["# How fast it is, and what costs what\n", _head(found)]
    figures = {}
    sections = (
        ("step", step),
        ("bottlenecks", bottlenecks),
        ("search", search),
        ("around", around),
        ("growth", growth),
    )
    for part, section in sections:
        for device, word in DEVICES.items():
            if result := found.get((part, device)):
                text, drawn = section(result)
                figures |= {f"{name}_{device}": figure for name, figure in drawn.items()}
                pictures = "".join(f"\n![{name}](figures/{name}_{device}.png)\n" for name in drawn)
                made = (
                    f"\n<sub>results/benchmarks/{part}_{device}.json; {result['hardware']}, torch {result['torch']}, "
                    f"networks in {result['precision']}; {number(result['wall'], 3)} s to measure.</sub>\n"
                )
                parts.append(f"## {TITLES[part]} ({word})\n\n{text}{pictures}{made}")
    return "\n".join(parts), figures


TITLES = {
    "step": "1. The training step against a straightforward loop",
    "bottlenecks": "2a. What each bottleneck costs",
    "search": "2b. Nearest-code search",
    "around": "3. Everything around training",
    "growth": "4. Growth: images a second and memory against each size",
}


def _head(found: Results) -> str:
    text = (
        "Measured by `make bench` (`python -m benchmarks`); every number and figure is drawn from "
        "[results/benchmarks](../../results/benchmarks) alone. Rivals take turns in one process, so that what "
        "disturbs "
        "one disturbs all; times are medians, with quartiles where they matter.\n"
    )
    return text if any(device == "cuda" for _, device in found) else f"{text}\n{NO_GPU}"
