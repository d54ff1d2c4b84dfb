"""A figure or table with its caption and the runs that it comes from."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from vqlib.reporting.families import TITLES, family
from vqlib.reporting.figures import FEW
from vqlib.reporting.html import to_html
from vqlib.reporting.results import Results
from vqlib.reporting.style import image_bytes
from vqlib.reporting.tables import Table, plain, with_interval

MOST_VALUES = 4  # that differ between runs and are still named
SETTINGS = {  # of a run, in words
    "steps": "{} steps",
    "batch_size": "batch {}",
    "width": "width {}",
    "learning_rate": "learning rate {}",
    "hardware": "{}",
    "device": "device {}",
    "precision": "trained in {}, evaluated in float32",
    "torch": "torch {}",
    "code": "code that trains the model, by digest: {}",
    "data": "data, by digest: {}",
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


ALL = "Runs: all that the head of this report names."


def provenance(results: Results, runs: Iterable[str]) -> str:
    """The runs behind an exhibit. The settings of those that figures compare stand at the report's head; of others,
    from the grid of learning rates, what differs between them stands here."""
    runs, usual = list(dict.fromkeys(runs)), set(results.runs_of())
    if set(runs) == usual:
        return ALL
    different = [] if set(runs) <= usual else [told for key, told, values in _settings(results, runs)
                                               if values > 1 and key not in ("code", "data")]  # fmt: skip
    return f"Runs: {', '.join(shortened(runs))} (variant-seed){''.join(f'; {told}' for told in different)}."


def shared(results: Results) -> str:
    """The settings that all runs share, and how many values the others have."""
    return "; ".join(told for _, told, _ in _settings(results, results.runs_of()))


def _settings(results: Results, runs: list[str]) -> Iterator[tuple[str, str, int]]:
    """(a setting of these runs, the same in words, the number of its values); a value stands with the runs that it
    belongs to."""
    for key, wording in SETTINGS.items():
        of: dict[str, list[str]] = {}
        for run in runs:
            of.setdefault(plain(results.evaluations[run]["provenance"].get(key)), []).append(run)
        if len(of) > MOST_VALUES:
            told = f"{len(of)} values (column provenance.{key} of tables/runs.csv)"
        elif len(of) == 1:
            told = next(iter(of))
        else:
            told = ", ".join(f"{value} ({', '.join(shortened(names))})" for value, names in of.items())
        yield key, wording.format(told), len(of)


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


def table_of(
    name: str, heading: str, shown: list[dict], values: list[dict], caption: str, results: Results, *runs: str
) -> Exhibit:
    """A table with a row per model, whose name stands in ``values["model"]`` if the rows are to be grouped."""
    of = runs or results.runs_of()
    several = any("±" in str(cell) for row in shown for title, cell in row.items() if not title.startswith("paper"))
    if several:
        caption += " ± is half of the 95 % t interval of a mean over seeds."
    models = [row.get("model") for row in values]
    groups = tuple(TITLES[family(model)] for model in models) if all(models) and len(models) > FEW else ()
    table = Table(pd.DataFrame(shown), pd.DataFrame(values), groups)
    return Exhibit(name, heading, table, caption, provenance(results, of))


def figure_of(name: str, heading: str, figure: Figure, caption: str, results: Results, *runs: str) -> Exhibit:
    return Exhibit(name, heading, figure, caption, provenance(results, runs or results.runs_of()))


def cells(results: Results, model: str, columns: dict[str, str]) -> tuple[dict[str, str], dict]:
    """The row of a model: as text by title and as numbers by column; mean ± half an interval over several seeds."""
    seeds = len(results.runs_of(model))
    texts, numbers = {"model": f"`{model}`", "seeds": str(seeds)}, {"model": model, "seeds": seeds}
    for title, column in columns.items():
        numbers[column], half = results.mean(model, column), results.interval(model, column)
        texts[title] = with_interval(numbers[column], half)
        if half == half:
            numbers[f"{column}_interval"] = half
    return texts, numbers


def listed(opening: str, values: dict[str, str]) -> str:
    """``opening`` and the values as a sentence; nothing when there are none, or too many to be read as one."""
    told = ", ".join(f"`{name}` {value}" for name, value in values.items())
    return f"{opening} {told}." if 0 < len(values) <= FEW else ""
