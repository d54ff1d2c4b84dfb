"""A figure or table with its caption and the runs that it comes from."""

from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from vqlib.reporting.html import to_html
from vqlib.reporting.results import Results
from vqlib.reporting.style import image_bytes
from vqlib.reporting.tables import Table, plain

SETTINGS = {
    "steps": "{} steps",
    "batch_size": "batch {}",
    "width": "width {}",
    "learning_rate": "learning rate {}",
    "hardware": "{}",
    "device": "device {}",
    "precision": "trained in {}, evaluated in float32",
    "torch": "torch {}",
    "code": "code {}",
    "data": "data {}",
}


@dataclass(frozen=True)
class Exhibit:
    """``content`` under ``heading``. Markdown is its one written form; HTML is made from that.

    As the last line of a notebook's cell it shows itself.
    """

    name: str  # of its files
    heading: str
    content: Figure | Table
    caption: str
    provenance: str

    @property
    def kind(self) -> str:
        return "Table" if isinstance(self.content, Table) else "Figure"

    @property
    def image(self) -> str:
        """Link to a figure's PNG, relative to the report."""
        return f"figures/{self.name}.png"

    def markdown(self, label: str = "") -> str:
        """``label`` is "Figure 1" or the like."""
        caption = f"**{label or self.kind}.** {self.caption}\n"
        if isinstance(self.content, Table):
            parts = [caption, self.content.markdown()]
        else:
            parts = [f"![{self.heading}]({self.image})\n", caption]
        return "\n".join([*parts, f"> {self.provenance}\n"])

    def _repr_html_(self) -> str:
        images = {} if isinstance(self.content, Table) else {self.image: image_bytes(self.content, "png")}
        return to_html(self.markdown(), images)


def provenance(results: Results, runs: Iterable[str]) -> str:
    """Where the runs come from: what they share once, what differs with the runs that it belongs to."""
    runs = list(runs)
    parts = []
    for key, wording in SETTINGS.items():
        of = {run: plain(results.evaluations[run]["provenance"].get(key)) for run in runs}
        values = list(dict.fromkeys(of.values()))
        told = [f"{value} ({', '.join(run for run in runs if of[run] == value)})" for value in values]
        parts.append(wording.format(values[0] if len(values) == 1 else ", ".join(told)))
    return f"Runs: {', '.join(runs)} (variant-seed). {'; '.join(parts)}."
