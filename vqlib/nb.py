"""Notebooks in a pipeline: stripped copies in, reproducible executed copies out.

``strip`` writes copies without outputs, so that saving a notebook in JupyterLab re-runs nothing, and their code alone,
so that mending the prose of 02_train trains nothing again. ``run`` executes one through papermill and takes out of the
executed copy whatever changes from one run to the next. ``page`` makes a page in Markdown of an executed copy.
"""

import argparse
import contextlib
import itertools
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

# nbformat imports jsonschema, which compiles a grammar of IRIs if it finds this: seconds, and no notebook has an IRI.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
from nbformat import NotebookNode

from vqlib import errors
from vqlib.errors import ParameterError, UserError
from vqlib.files import in_one_line, write_atomically
from vqlib.params import ROOT, load_experiment, nearest

PARAMETER = re.compile(r"[a-z][a-z0-9_]*")  # papermill writes the name into code, so nothing else may be one
AGAIN = "start again: a training goes on from its last checkpoint"
TO_SAVE = 600  # seconds that a kernel has to end after a signal: a step and the writing of a checkpoint


def strip(notebook: NotebookNode) -> NotebookNode:
    """A copy with sources, cell types, ids and tags alone: no outputs, counts or editor's metadata."""
    cells = []
    for cell in notebook.cells:
        kept = NotebookNode(id=cell.id, cell_type=cell.cell_type, metadata=NotebookNode(), source=cell.source)
        if cell.metadata.get("tags"):
            kept.metadata["tags"] = list(cell.metadata.tags)
        if cell.cell_type == "code":
            kept |= {"outputs": [], "execution_count": None}
        cells.append(kept)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    return NotebookNode(cells=cells, metadata=metadata, nbformat=4, nbformat_minor=5)


def code_of(notebook: NotebookNode) -> bytes:
    """The code cells alone, as a script to compare: prose may change without changing what a run does."""
    return "\n".join(f"# %%\n{cell.source}\n" for cell in notebook.cells if cell.cell_type == "code").encode()


def scrub(executed: NotebookNode) -> NotebookNode:
    """The executed notebook as the same code and data always make it.

    Times, papermill's metadata and random cell ids go; so does standard error, where progress is shown; pieces of
    standard output, which arrive cut at random places, are joined.
    """
    clean = strip(executed)
    for number, (cell, ran) in enumerate(zip(clean.cells, executed.cells, strict=True)):
        cell["id"] = f"cell-{number:02d}"
        if cell.cell_type != "code":
            continue
        cell["execution_count"] = ran.execution_count
        for output in ran.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                continue
            last = cell.outputs[-1] if cell.outputs else None
            if output.output_type == "stream" and last is not None and last.output_type == "stream":
                last["text"] += output.text
            else:
                cell.outputs.append(output)
    return clean


def to_bytes(notebook: NotebookNode) -> bytes:
    """As it is written everywhere here: one layout, so that equal notebooks are equal files."""
    return (nbformat.writes(notebook, version=4) + "\n").encode()


def read(path: Path) -> NotebookNode:
    """Raises UserError for a file that is missing or no notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except (FileNotFoundError, ValueError, nbformat.reader.NotJSONError) as error:
        raise UserError(f"{path}: not a notebook ({type(error).__name__}); it must be a readable .ipynb file") from None


def run(source: Path, target: Path, parameters: dict[str, str]) -> None:
    """Execute ``source`` with ``parameters`` (text only) from the repository's root; write the scrubbed copy.

    An executed copy that failed stays beside the target as ``<name>.failed.ipynb``.

    Raises:
        UserError: a parameter is not one of the notebook's, names no experiment or run, or the notebook raised one;
            its kernel was killed; a file cannot be written.
        KeyboardInterrupt: this process or the kernel was interrupted; the kernel has saved and ended too. A second
            signal does not wait for it.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # that a signal also cut nbclient's tasks off is no news
    # half of it passes before jupyter_client sends SIGTERM, which a training takes for a second signal
    patience = Config({"KernelManager": {"shutdown_wait_time": 2 * TO_SAVE}})
    read(source)  # refuses what is no notebook in one line
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if not PARAMETER.fullmatch(name) or name not in known:
            raise ParameterError(f"{source.name}: {name!r} is no parameter of it{nearest(name, known)}")
    if "experiment" in parameters:
        experiment = load_experiment(parameters["experiment"])
        if "run" in parameters:
            experiment.run(parameters["run"])

    working, obsolete = target.with_suffix(".failed.ipynb"), target.with_suffix(".obsolete")
    with in_one_line(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # progress comes in lines (vqlib.progress); the file names checkpoints to delete at the end (vqlib.checkpoints)
        os.environ["VQLIB_PIPELINE"] = str(obsolete.resolve())
        try:
            executed = papermill.execute_notebook(
                str(source), str(working), parameters, kernel_name="python3", cwd=str(ROOT), progress_bar=False,
                stdout_file=sys.stdout, stderr_file=sys.stderr, extra_arguments=["--log-level=CRITICAL"],
                config=patience,
            )  # fmt: skip
        except PapermillExecutionError as error:
            if error.ename in ("KeyboardInterrupt", "Stopped"):
                raise KeyboardInterrupt(error.evalue) from None
            if isinstance(getattr(errors, error.ename, None), type):
                raise UserError(error.evalue) from None
            raise
        except DeadKernelError:
            raise UserError(f"{source.name}: its kernel was killed, perhaps for lack of memory; {AGAIN}") from None
        finally:
            del os.environ["VQLIB_PIPELINE"]
        write_atomically(target, to_bytes(scrub(executed)))
        working.unlink()
        if obsolete.is_file():
            shutil.rmtree(obsolete.read_text(), ignore_errors=True)
            obsolete.unlink()


def end_with_dvc() -> None:
    """Get SIGTERM when the `dvc repro` that started this process has ended, which would leave its command running."""
    import psutil

    ancestors = itertools.pairwise([psutil.Process(), *psutil.Process().parents()])
    found = next((pair for pair in ancestors if not pair[1].name().endswith("sh")), None)  # some shells stay in between

    def watch(command: psutil.Process, dvc: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while command.ppid() == dvc.pid:
                time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    if found:
        threading.Thread(target=watch, args=found, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """``python -m vqlib.nb strip|run|page``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m vqlib.nb", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    stripping = commands.add_parser("strip", help="write copies without outputs")
    stripping.add_argument("notebooks", nargs="+", type=Path)
    stripping.add_argument("--to", type=Path, help="folder of the copies; without it, the notebooks themselves")
    running = commands.add_parser("run", help="execute one through papermill")
    running.add_argument("notebook", type=Path)
    running.add_argument("output", type=Path)
    running.add_argument("-r", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "TEXT"))
    reading = commands.add_parser("page", help="make a page in Markdown of an executed one")
    reading.add_argument("notebook", type=Path)
    reading.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the kernel is ended as on Ctrl-C
    if "DVC_STAGE" in os.environ:
        end_with_dvc()
    try:
        if given.command == "run":
            run(given.notebook, given.output, dict(given.parameters))
        elif given.command == "page":
            from vqlib.pages import write_page

            print(write_page(read(given.notebook), given.notebook.name, given.folder))
        else:
            for path in given.notebooks:
                notebook, target = strip(read(path)), given.to / path.name if given.to else path
                with in_one_line(target):
                    write_atomically(target, to_bytes(notebook))
                    if given.to:
                        write_atomically(target.with_suffix(".py"), code_of(notebook))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"{str(stopped) or 'stopped'}; {AGAIN}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
