"""An executed notebook as a page in Markdown, to be read without running it."""

import re
from pathlib import Path

from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from traitlets.config import Config

from vqlib.files import in_one_line, write_atomically

PICTURE = "figures/cell_{cell_index}_{index}{extension}"
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)  # code, to be left as it is
BLANK = re.compile(r"\n(?:[ \t]*\n){2,}")
SHOWN = re.compile(r"^!\[png\]\((?=figures/cell_)", re.MULTILINE)
STYLE = re.compile(r"<style scoped>.*?</style>\n", re.DOTALL)  # of pandas' tables; pages in Markdown show it as text


def write_page(executed: NotebookNode, name: str, folder: Path) -> Path:
    """Write ``folder``/README.md with its pictures in ``folder``/figures; returns the page. What an earlier page left
    there and this one lacks is removed.

    Args:
        name: of the notebook, which lies in notebooks/; the folder is one of reports/.

    Raises:
        UserError: the folder cannot be written.
    """
    exporter = MarkdownExporter(config=Config({"ExtractOutputPreprocessor": {"output_filename_template": PICTURE}}))
    text, made = exporter.from_notebook_node(executed)
    parts = FENCED.split(text)
    parts[::2] = [SHOWN.sub("![what the cell above shows](", BLANK.sub("\n\n", STYLE.sub("", part)))
                  for part in parts[::2]]  # fmt: skip
    opening = (
        f"> The notebook [{name}](../../notebooks/{name}), run from top to bottom on a CPU; `make lab` opens it, and "
        "`make tour` makes this page of it.\n\n"
    )
    files = {**made.get("outputs", {}), "README.md": f"{opening}{''.join(parts).strip()}\n".encode()}
    with in_one_line(folder):
        for file, content in files.items():
            write_atomically(folder / file, content)
        for path in (folder / "figures").glob("*"):
            if f"figures/{path.name}" not in files:
                path.unlink()
    return folder / "README.md"
