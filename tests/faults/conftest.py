"""Every fault that is tried is counted; `make faults` writes the counts as a table."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HEADER = """\
# Faults: what was tried, and what was survived

`make faults` breaks things on purpose, counts, and writes this page. A fault is survived when the promise is kept that
the tests assert for it: the same bytes as without it, or one line that names the thing; nothing lost, no code run.

| part | kind of fault | tried | survived | seen |
|---|---|--:|--:|---|
"""


@dataclass
class Row:
    tried: int = 0
    survived: int = 0
    seen: Counter = field(default_factory=Counter)


ROWS: dict[tuple[str, str], Row] = {}


def pytest_addoption(parser):
    parser.addoption("--faults-table", type=Path, help="write what was tried and survived to this file")


@pytest.fixture(scope="session")
def attempt() -> Callable:
    """``with attempt("training", "kill -9 at a random point") as seen: ...; seen("went on")`` counts one fault.

    It is survived when the block ends without an exception. ``seen`` takes a few words without times or paths.
    """

    @contextlib.contextmanager
    def attempt(part: str, kind: str) -> Iterator[Callable[[str], None]]:
        row, words = ROWS.setdefault((part, kind), Row()), []
        try:
            yield words.append
        except pytest.skip.Exception as skipped:
            row.seen[f"skipped: {skipped}"] += 1
            raise
        except BaseException:
            row.tried += 1
            raise
        row.tried += 1
        row.survived += 1
        row.seen.update(words)

    return attempt


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes: the first one writes
        session.config.workeroutput["faults"] = [
            (key, (row.tried, row.survived, dict(row.seen))) for key, row in ROWS.items()
        ]
        return
    path = session.config.getoption("--faults-table", None)
    if path and ROWS:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """In the first process, when another one has ended: its counts are added."""
    for key, (tried, survived, seen) in getattr(node, "workeroutput", {}).get("faults", ()):
        row = ROWS.setdefault(tuple(key), Row())
        row.tried += tried
        row.survived += survived
        row.seen.update(seen)


def table() -> str:
    lines = [
        f"| {part} | {kind} | {row.tried} | {row.survived} | {in_words(row.seen)} |"
        for (part, kind), row in sorted(ROWS.items())
    ]
    tried, survived = (sum(getattr(row, name) for row in ROWS.values()) for name in ("tried", "survived"))
    return HEADER + "\n".join([*lines, f"| **all** | | **{tried}** | **{survived}** | |"]) + "\n"


def in_words(seen: Counter) -> str:
    return "; ".join(f"{words} ({count})" for words, count in sorted(seen.items()))
