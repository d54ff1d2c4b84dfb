"""How far a long piece of work is: a bar where a person watches, else a line now and then."""

import os
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

Say = Callable[[str], None]


def say(line: str) -> None:
    """One line on standard error, at once."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """``update(done, note)`` as often as you like; lines go to ``to`` at most every ``seconds``, and one at the end.

    A person watches where lines go to standard error and that is a terminal, or in a notebook that no pipeline runs.
    """

    def __init__(
        self, name: str, total: int, unit: str, start: int = 0, seconds: float = 10, to: Say | None = say
    ):  # None: nobody wants to know
        self.name, self.total, self.unit, self.start, self.seconds = name, total, unit, start, seconds
        self.began = self.last = time.monotonic()
        self.done, self.to = start, to
        in_notebook = "ipykernel" in sys.modules and "VQLIB_PIPELINE" not in os.environ
        watched = to is say and (sys.stderr.isatty() or in_notebook)
        self.bar = tqdm(total=total, initial=start, desc=name, unit=f" {unit}", unit_scale=True) if watched else None

    def add(self, more: int) -> None:
        self.update(self.done + more)

    def update(self, done: int, note: str = "") -> None:
        self.done = done
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last >= self.seconds or done == self.total:
            self.last = now
            rate = (done - self.start) / max(now - self.began, 1e-9)
            left = (self.total - done) / rate if rate > 0 else 0
            self.say(f"{self.name}: {done:,}/{self.total:,} {self.unit} ({done / self.total:.0%}), "
                     f"{rate:,.0f} {self.unit}/s, {left / 60:.1f} min left{'; ' if note else ''}{note}")  # fmt: skip

    def say(self, line: str) -> None:
        """One line, whatever the time."""
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        elif self.to is not None:
            self.to(line)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
